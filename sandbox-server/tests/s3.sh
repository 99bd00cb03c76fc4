#!/usr/bin/env bash
# Backs up to, and restores from, a server that speaks S3 (moto, tests/moto.sh): dated names, --keep, the newest,
# a packed copy in several parts, a run that is killed on the way, wrong credentials, and what the metrics file says of each.
# SANDBOX_SERVER names a binary to try instead of the one that is built here.
set -euo pipefail
cd "$(dirname "$0")/../.."

moto=$(tests/moto.sh)

if [[ -z ${SANDBOX_SERVER:-} ]]; then
    SANDBOX_SERVER=$(tests/build.sh)/sandbox-server
fi

work=$(mktemp -d)
trap 'kill "$moto_pid" 2>/dev/null || true; rm -rf "$work"' EXIT
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$moto/moto_server" --host 127.0.0.1 --port "$port" >"$work/moto.log" 2>&1 &
moto_pid=$!
export AWS_ENDPOINT_URL=http://127.0.0.1:$port AWS_REGION=us-east-1 AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test NO_PROXY=127.0.0.1
until "$moto/python" -c 'import boto3; boto3.client("s3").create_bucket(Bucket="backups")' 2>/dev/null; do
    kill -0 "$moto_pid" || { cat "$work/moto.log" >&2; exit 1; }
    sleep 0.1
done

fail() {
    echo "s3: $*" >&2
    exit 1
}
names() { "$moto/python" -c 'import boto3; [print(o["Key"]) for o in boto3.client("s3").list_objects_v2(Bucket="backups").get("Contents", [])]'; }
sql() { python3 -c 'import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); r = c.execute(sys.argv[2]).fetchone(); c.commit(); r and print(r[0])' "$@"; }
server() { "$SANDBOX_SERVER" "$@" 2>>"$work/log"; }
metric() { sed -n "s/^sandbox_backup_$1{.*} //p" "$work/metrics"; }

sql "$work/x.db" 'CREATE TABLE t (v)' && sql "$work/x.db" 'INSERT INTO t VALUES (1)'
to=s3://backups/team/a
for value in 2 3 4; do
    server backup --db "$work/x.db" --to "$to" --keep 2 --compress zstd --metrics-file "$work/metrics"
    sql "$work/x.db" "INSERT INTO t VALUES ($value)"
done
[[ $(names | grep -c '^team/a/x-.*\.db\.zst$') == 2 ]] || fail "--keep 2 keeps $(names)"
[[ $(metric last_run_success) == 1 ]] || fail "the metrics do not tell of a backup"

server restore --db "$work/new/x.db" --from "$to" && fail "a missing folder was restored to"
mkdir "$work/new"
server restore --db "$work/new/x.db" --from "$to"
[[ $(sql "$work/new/x.db" 'SELECT count(*) FROM t') == 3 ]] || fail "the newest backup was not restored"
server restore --db "$work/new/x.db" --from "$to" --if-missing
server restore --db "$work/new/x.db" --from "$to" && fail "a database was replaced without --force"
oldest=$(names | sort | head -n 1)
server restore --db "$work/new/x.db" --from "s3://backups/$oldest" --force
[[ $(sql "$work/new/x.db" 'SELECT count(*) FROM t') == 2 ]] || fail "the named backup was not restored"

# Three parts.
sql "$work/big.db" 'CREATE TABLE t (v)' && sql "$work/big.db" 'INSERT INTO t VALUES (randomblob(20000000))'
server backup --db "$work/big.db" --to "$to/big"
(cd "$work" && mkdir big && server restore --db big/big.db --from "$to/big")
[[ $(sql "$work/big/big.db" 'SELECT length(v) FROM t') == 20000000 ]] || fail "three parts did not come back"

# A run that is killed before its parts are put together.
sql "$work/huge.db" 'CREATE TABLE t (v)' && sql "$work/huge.db" 'INSERT INTO t VALUES (randomblob(150000000))'
server backup --db "$work/huge.db" --to "$to/killed" &
killed=$!
until grep -q 'POST /backups/team/a/killed/.*?uploads' "$work/moto.log"; do kill -0 $killed || fail "nothing was left to be killed"; done
kill -KILL $killed
wait $killed || true
grep -q 'POST /backups/team/a/killed/.*?uploadId' "$work/moto.log" && fail "the kill came too late"
[[ $(names) != *killed* ]] || fail "half a backup is there as if it were whole"
[[ -n $(find "$work" -name 'huge-*.partial-*') ]] || fail "the killed backup left nothing: what is the next one to remove?"
server backup --db "$work/huge.db" --to "$to/killed" --compress zstd
[[ -z $(find "$work" -name '*.partial-*') ]] || fail "what the killed backup left is still there"

# Credentials out of files, as a mounted Secret has them.
(
    unset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY
    echo test >"$work/key"
    export AWS_ACCESS_KEY_ID_FILE=$work/key AWS_SECRET_ACCESS_KEY_FILE=$work/key
    server backup --db "$work/x.db" --to s3://backups/files
)
before=$(metric last_success_timestamp_seconds)
server backup --db "$work/x.db" --to s3://no-such-bucket/x --metrics-file "$work/metrics" && fail "a bucket that is not there took a backup"
[[ $(metric last_run_success) == 0 && $(metric last_success_timestamp_seconds) == "$before" ]] || fail "the metrics do not tell of the failure"
grep -q 'failed to write s3://no-such-bucket/x' "$work/log" || fail "the failure is not told"
grep -q 'panicked' "$work/log" && fail "a panic"
echo "s3: backups to and from moto $moto, in parts, kept, killed and refused"
