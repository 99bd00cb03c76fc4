"""Makes a folder that npm, pip and uv take for their registries, when any web server hands it out: FOLDER/npm and FOLDER/simple.

Usage: registry.py FOLDER ADDRESS --npm NAME@VERSION... --python VERSION --pypi NAME==VERSION...
ADDRESS is where the folder will be, for example http://registry:8080, and VERSION the Python that the packages will run on. Packages and all that they need are fetched from the registries that
npm and pip are set to.
"""

import argparse
import hashlib
import base64
import json
import pathlib
import re
import subprocess
import sys
import tarfile
import tempfile


def npm(folder: pathlib.Path, address: str, packages: list[str]) -> None:
    tarballs = folder / "tarballs"
    tarballs.mkdir(parents=True, exist_ok=True)
    known: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as work:
        (pathlib.Path(work) / "package.json").write_text('{"private": true}')
        options = ["--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
        subprocess.run(["npm", "install", "--package-lock-only", *options, *packages], cwd=work, check=True)
        lock = json.loads((pathlib.Path(work) / "package-lock.json").read_text())
        wanted = set()
        for place, package in lock["packages"].items():
            if place and not package.get("link"):
                wanted.add(f"{package.get('name') or place.split('node_modules/')[-1]}@{package['version']}")
        subprocess.run(["npm", "pack", "--silent", "--pack-destination", str(tarballs), *sorted(wanted)], cwd=work, check=True, stdout=subprocess.DEVNULL)
    for tarball in sorted(tarballs.glob("*.tgz")):
        with tarfile.open(tarball) as archive:
            # Most have a folder called package; some call it otherwise.
            member = next(m for m in archive.getmembers() if re.fullmatch(r"[^/]+/package\.json", m.name))
            manifest = json.load(archive.extractfile(member))
        digest = base64.b64encode(hashlib.sha512(tarball.read_bytes()).digest()).decode()
        manifest["dist"] = {"tarball": f"{address}/npm/tarballs/{tarball.name}", "integrity": f"sha512-{digest}"}
        if isinstance(manifest.get("bin"), str):
            manifest["bin"] = {manifest["name"].split("/")[-1]: manifest["bin"]}
        document = known.setdefault(manifest["name"], {"name": manifest["name"], "dist-tags": {}, "versions": {}})
        document["versions"][manifest["version"]] = manifest
        document["dist-tags"]["latest"] = manifest["version"]
    for name, document in known.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(document))


def pypi(folder: pathlib.Path, python: str, packages: list[str]) -> None:
    wheels = folder / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    # All at once: of each package the one version that suits them all, which is then what uv finds.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"]
    subprocess.run([*command, "--python-version", python, "--dest", str(wheels), *packages], check=True)
    pages: dict[str, list[str]] = {}
    for wheel in sorted(wheels.glob("*.whl")):
        name = re.sub(r"[-_.]+", "-", wheel.name.split("-")[0]).lower()
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        pages.setdefault(name, []).append(f'<a href="../../wheels/{wheel.name}#sha256={digest}">{wheel.name}</a>')
    for name, links in pages.items():
        page = folder / "simple" / name / "index.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text("<!DOCTYPE html><html><body>" + "<br>".join(links) + "</body></html>")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("address")
    parser.add_argument("--npm", nargs="*", default=[])
    parser.add_argument("--python", required=True)
    parser.add_argument("--pypi", nargs="*", default=[])
    given = parser.parse_args()
    # Both installers are run elsewhere.
    given.folder = given.folder.resolve()
    if given.npm:
        npm(given.folder / "npm", given.address, given.npm)
    pypi(given.folder, given.python, given.pypi)


main()
