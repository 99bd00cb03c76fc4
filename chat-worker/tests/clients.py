"""The official Python client lists and calls the fleet's tools, reads its resources and prompts, and is asked by its servers.
Usage: clients.py URL MODE FOLDER, where MODE is a mode of the client of 2.x (auto, legacy, a revision), or `v1` for the one of 1.x, and FOLDER
what the server `files` has.
"""

import asyncio
import base64
import sys
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path

questions = []


async def elicited(_context, params):
    from mcp.types import ElicitResult

    questions.append(params.message)
    return ElicitResult(action="accept", content={"name": "Ann", "check": True})


@asynccontextmanager
async def connect(url, mode):
    """A connected client, and the revision that it speaks."""
    if mode == "v1":
        from mcp import ClientSession
        from mcp.client.streamable_http import streamablehttp_client

        async with streamablehttp_client(url) as (read, write, _), ClientSession(read, write, elicitation_callback=elicited) as session:
            yield session, (await session.initialize()).protocolVersion
    else:
        from mcp.client.client import Client

        async with Client(url, mode=mode, elicitation_callback=elicited) as client:
            yield client, client.protocol_version


def of(thing, name):
    """A field, by its name in the protocol: the client of 1.x has that, the one of 2.x has Python's."""
    return getattr(thing, name) if hasattr(thing, name) else getattr(thing, "".join("_" + letter.lower() if letter.isupper() else letter for letter in name))


async def main(url, mode, folder):
    async with connect(url, mode) as (client, revision):
        tools = {tool.name for tool in (await client.list_tools()).tools}
        assert "db__read_query" in tools, tools

        async def call(name, arguments, **options):
            answer = await client.call_tool(name, arguments, **options)
            assert not of(answer, "isError"), answer
            return answer

        answer = await call("db__read_query", {"query": "SELECT 42 AS answer"})
        assert "42" in answer.content[0].text, answer
        refused = await client.call_tool("db__read_query", {"query": "DROP TABLE t"})
        assert of(refused, "isError"), refused
        steps = []

        async def progressed(progress, total, _message):
            steps.append((progress, total))

        operation = {"duration": 0.3, "steps": 3}
        await call("everything__trigger-long-running-operation", operation, progress_callback=progressed)
        assert steps == [(1, 3), (2, 3), (3, 3)], steps
        asked = await call("everything__trigger-elicitation-request", {})
        assert any("- Name: Ann" in getattr(block, "text", "") for block in asked.content), asked
        assert questions == ["Please provide inputs for the following fields:"], questions

        image = next(block for block in (await call("everything__get-tiny-image", {})).content if block.type == "image")
        assert of(image, "mimeType") == "image/png" and base64.b64decode(image.data)[1:4] == b"PNG", image
        [image] = (await call("files__read_media_file", {"path": f"{folder}/pixel.png"})).content
        assert image.type == "image" and base64.b64decode(image.data) == Path(folder, "pixel.png").read_bytes(), image
        note = await call("files__read_text_file", {"path": f"{folder}/note.txt"})
        assert "kept here" in note.content[0].text, note
        outside = await client.call_tool("files__read_text_file", {"path": "/etc/passwd"})
        assert of(outside, "isError") and "outside allowed directories" in outside.content[0].text, outside
        entity = {"name": f"Python {mode}", "entityType": "client", "observations": ["it was here"]}
        await call("memory__create_entities", {"entities": [entity]})
        graph = of(await call("memory__read_graph", {}), "structuredContent")
        assert entity in graph["entities"], graph

        uris = {str(resource.uri) for resource in (await client.list_resources()).resources}
        features = "demo://resource/static/document/features.md"
        assert {"memo://insights", "memory://knowledge-graph", features} <= uris, uris

        async def read(uri):
            if mode == "v1":
                from pydantic import AnyUrl

                uri = AnyUrl(uri)
            return (await client.read_resource(uri)).contents[0]

        assert entity["name"] in (await read("memory://knowledge-graph")).text
        assert (await read(features)).text.startswith("#")
        templates = {of(template, "uriTemplate") for template in of(await client.list_resource_templates(), "resourceTemplates")}
        assert "demo://resource/dynamic/blob/{resourceId}" in templates, templates
        blob = await read("demo://resource/dynamic/blob/7")
        assert base64.b64decode(blob.blob).startswith(b"Resource 7: "), blob

        prompts = {prompt.name for prompt in (await client.list_prompts()).prompts}
        assert {"db__mcp-demo", "everything__simple-prompt", "everything__args-prompt"} <= prompts, prompts
        asked = await client.get_prompt("everything__args-prompt", {"city": "Bern", "state": "BE"})
        assert [message.content.text for message in asked.messages] == ["What's weather in Bern, BE?"], asked
    print(f"clients: Python {version('mcp')}, {mode}, {revision}: {len(tools)} tools of the fleet, progress, pictures, a question, resources and prompts")


asyncio.run(main(*sys.argv[1:]))
