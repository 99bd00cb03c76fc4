"""The official Python client calls everything that the server offers. It checks each structured result against the tool's output schema
by itself. Usage: clients.py URL MODE, where MODE is a mode of the client of 2.x (auto, legacy, a revision), or `v1` for the one of 1.x.
"""

import asyncio
import sys
from contextlib import asynccontextmanager
from importlib.metadata import version


@asynccontextmanager
async def connect(url, mode):
    """A connected client, and the revision that it speaks."""
    if mode == "v1":
        from mcp import ClientSession
        from mcp.client.streamable_http import streamablehttp_client

        async with streamablehttp_client(url) as (read, write, _), ClientSession(read, write) as session:
            yield session, (await session.initialize()).protocolVersion
    else:
        from mcp.client.client import Client

        async with Client(url, mode=mode) as client:
            yield client, client.protocol_version


def member(thing, name):
    """A field whose name is in camel case in 1.x and has underscores in 2.x."""
    snake = "".join("_" + letter.lower() if letter.isupper() else letter for letter in name)
    return getattr(thing, snake, None) if hasattr(thing, snake) else getattr(thing, name)


async def everything(client, table):
    """Calls all tools, resources, the prompt and the completion; returns how many tools there are."""
    offered = {tool.name for tool in (await client.list_tools()).tools}
    called = set()

    async def call(tool, **arguments):
        called.add(tool)
        result = await client.call_tool(tool, arguments)
        assert not member(result, "isError"), (tool, result)
        return member(result, "structuredContent")

    await call("create_table", query=f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, name TEXT)")
    written = await call("write_query", query=f"INSERT INTO {table} (name) VALUES (?), (?)", params=["a", 'ä "b"\n'])
    assert written == {"affected_rows": 2, "last_insert_rowid": 2}, written
    query = f"SELECT * FROM {table} ORDER BY id"
    first = await call("read_query", query=query, max_rows=1)
    assert first["rows"] == [[1, "a"]] and first["truncated"], first
    second = await call("read_query", query=query, max_rows=1, cursor=first["next_cursor"])
    assert second["rows"] == [[2, 'ä "b"\n']], second
    named = await call("read_query", query=f"SELECT name FROM {table} WHERE id = :id", params={"id": 1})
    assert named["rows"] == [["a"]], named
    batch = await call(
        "write_batch",
        statements=[
            {"query": f"INSERT INTO {table} (name) VALUES (:name)", "params": {"name": "c"}},
            {"query": f"DELETE FROM {table} WHERE name = ? RETURNING id", "params": ["c"]},
        ],
    )
    inserted, deleted = batch["results"]
    assert inserted == {"affected_rows": 1, "last_insert_rowid": 3}, batch
    assert deleted["affected_rows"] == 1 and deleted["returned"]["rows"] == [[3]], batch
    assert (await call("execute_sql_query", query=f"SELECT count(*) FROM {table}"))["rows"] == [[2]]
    assert table in [found["name"] for found in (await call("list_tables"))["tables"]]
    assert len((await call("describe_table", table_name=table))["columns"]) == 2
    assert (await call("explain_query", query=f"SELECT * FROM {table} WHERE id = 1"))["row_count"] == 1
    assert (await call("search_schema", text=table))["matches"]
    await call("append_insight", insight=f"seen by {table}")
    assert called == offered, called ^ offered

    assert member(await client.call_tool("read_query", {"query": f"DELETE FROM {table}"}), "isError")
    fails = [{"query": f"DELETE FROM {table}"}, {"query": f"INSERT INTO {table} (id) VALUES ('no number')"}]
    assert member(await client.call_tool("write_batch", {"statements": fails}), "isError")
    assert (await call("read_query", query=f"SELECT count(*) FROM {table}"))["rows"] == [[2]]
    try:
        await client.call_tool("no_such_tool", {})
    except Exception as error:
        assert "no_such_tool" in str(error), error
    else:
        raise AssertionError("an unknown tool was answered")

    uris = [str(resource.uri) for resource in (await client.list_resources()).resources]
    assert {"memo://insights", f"schema://tables/{table}"} <= set(uris), uris
    memo = await client.read_resource(uri(client, "memo://insights"))
    assert f"seen by {table}" in memo.contents[0].text
    schema = await client.read_resource(uri(client, f"schema://tables/{table}"))
    assert schema.contents[0].text.startswith("CREATE TABLE"), schema
    template = member((await client.list_resource_templates()), "resourceTemplates")[0]
    reference = reference_to(client, member(template, "uriTemplate"))
    assert table in (await client.complete(reference, {"name": "table", "value": table[:2]})).completion.values
    prompt = (await client.list_prompts()).prompts[0]
    assert (await client.get_prompt(prompt.name, {"topic": "tea"})).messages
    return len(called)


def uri(client, text):
    """1.x wants the type, 2.x the text."""
    if type(client).__name__ == "ClientSession":
        from pydantic import AnyUrl

        return AnyUrl(text)
    return text


def reference_to(client, template):
    from mcp import types

    kind = getattr(types, "ResourceTemplateReference", None)
    if kind is None:
        import mcp_types

        kind = mcp_types.ResourceTemplateReference
    return kind(type="ref/resource", uri=template)


async def main():
    url, mode = sys.argv[1:]
    async with connect(url, mode) as (client, revision):
        table = f"py_{version('mcp').replace('.', '_')}_{mode.replace('-', '_')}"
        count = await everything(client, table)
        print(f"clients: Python {version('mcp')}, {revision}: {count} tools, resources, completion and the prompt answer as they should")


asyncio.run(main())
