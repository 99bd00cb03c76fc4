//! What the tools answer, beyond what their unit tests show.

use serde_json::{Value, json};

use crate::support::Server;

const SCHEMA: &str = "
    CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT UNIQUE);
    CREATE TABLE purchase (id INTEGER PRIMARY KEY, customer_id INTEGER REFERENCES customer(id) ON DELETE CASCADE, cents INTEGER DEFAULT 0, gross AS (cents * 1.19));
    CREATE INDEX purchase_customer ON purchase (customer_id);
    CREATE VIEW spender AS SELECT name, sum(cents) AS cents FROM customer JOIN purchase ON customer.id = customer_id GROUP BY name;
    INSERT INTO customer VALUES (1, 'Ada', 'ada@example.com'), (2, 'Grace', NULL);
    INSERT INTO purchase (customer_id, cents) VALUES (1, 500), (1, 250), (2, 100);
";

#[tokio::test]
async fn structured_content_fits_the_schema_that_was_promised() {
    let server = Server::start(SCHEMA, &[]);
    let tools: Value = server.modern("tools/list", json!({})).send().await.unwrap().json().await.unwrap();
    let schema = |name: &str| {
        tools["result"]["tools"].as_array().unwrap().iter().find(|tool| tool["name"] == name).unwrap()["outputSchema"].clone()
    };
    for (tool, arguments) in [
        ("read_query", json!({"query": "SELECT *, x'00ff', NULL, 1.5 FROM customer"})),
        ("read_query", json!({"query": "SELECT id FROM customer", "max_rows": 1})),
        ("read_query", json!({"query": "SELECT id FROM customer WHERE 0"})),
        ("write_query", json!({"query": "UPDATE customer SET name = name RETURNING id"})),
        ("write_query", json!({"query": "INSERT INTO customer (name) VALUES ('x')"})),
        ("write_query", json!({"query": "INSERT INTO customer (id, name) VALUES (9007199254740993, 'x')"})),
        (
            "write_batch",
            json!({"statements": [{"query": "INSERT INTO customer (name) VALUES (?)", "params": ["y"]}, {"query": "SELECT 1"}]}),
        ),
        ("create_table", json!({"query": "CREATE TABLE extra (a)"})),
        ("list_tables", json!({})),
        ("describe_table", json!({"table_name": "purchase"})),
        ("describe_table", json!({"table_name": "spender"})),
        ("append_insight", json!({"insight": "x"})),
        ("explain_query", json!({"query": "SELECT 1 FROM customer"})),
        ("search_schema", json!({"text": "c"})),
    ] {
        let content = server.ok(tool, arguments.clone()).await;
        let validator = jsonschema::validator_for(&schema(tool)).unwrap();
        let faults: Vec<String> = validator.iter_errors(&content).map(|error| error.to_string()).collect();
        assert!(faults.is_empty(), "{tool} {arguments}: {faults:?}");
    }
}

#[tokio::test]
async fn hints_tell_reading_from_writing() {
    let server = Server::start("", &[]);
    let tools: Value = server.modern("tools/list", json!({})).send().await.unwrap().json().await.unwrap();
    let read_only: Vec<&str> = tools["result"]["tools"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|tool| tool["annotations"]["readOnlyHint"] == true)
        .map(|tool| tool["name"].as_str().unwrap())
        .collect();
    assert_eq!(read_only, ["read_query", "list_tables", "describe_table", "explain_query", "search_schema"]);
    assert!(
        tools["result"]["tools"]
            .as_array()
            .unwrap()
            .iter()
            .all(|tool| tool["annotations"]["openWorldHint"] == false && tool["inputSchema"]["type"] == "object")
    );
}

#[tokio::test]
async fn a_table_is_described_whole() {
    let server = Server::start(SCHEMA, &[]);
    let table = server.ok("describe_table", json!({"table_name": "PURCHASE"})).await;
    assert_eq!(table["columns"].as_array().unwrap().len(), 4);
    assert_eq!((&table["columns"][3]["name"], &table["columns"][3]["generated"]), (&json!("gross"), &json!(true)));
    assert_eq!(table["indexes"], json!([{"name": "purchase_customer", "unique": false, "columns": ["customer_id"]}]));
    assert_eq!(table["foreign_keys"], json!([{"from": "customer_id", "table": "customer", "to": "id", "on_delete": "CASCADE"}]));
    let error = server.error("describe_table", json!({"table_name": "custmer"})).await;
    assert_eq!(error, "no such table: custmer\nDid you mean \"customer\"?\nTables: customer, purchase, spender.");
    server.error("describe_table", json!({"table_name": "customer); DROP TABLE customer; --"})).await;
}

#[tokio::test]
async fn a_long_result_comes_in_pages() {
    let server = Server::start(
        "CREATE TABLE n (i); WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < 2500) INSERT INTO n SELECT i FROM s",
        &[],
    );
    let query = json!({"query": "SELECT i FROM n WHERE i > ? ORDER BY i", "params": [0]});
    let mut cursor = Value::Null;
    let mut seen = Vec::new();
    loop {
        let mut arguments = query.clone();
        arguments["cursor"] = cursor;
        let page = server.ok("read_query", arguments).await;
        seen.extend(page["rows"].as_array().unwrap().iter().map(|row| row[0].as_i64().unwrap()));
        assert_eq!(page["truncated"], json!(page.get("next_cursor").is_some()));
        match page.get("next_cursor") {
            Some(next) => cursor = next.clone(),
            None => break,
        }
    }
    assert_eq!(seen, (1..=2500).collect::<Vec<i64>>());
}

#[tokio::test]
async fn values_are_bound_and_never_read_as_sql() {
    let server = Server::start(SCHEMA, &[]);
    let name = "x'); DROP TABLE customer; --";
    server.ok("write_query", json!({"query": "INSERT INTO customer (name, email) VALUES (?, ?)", "params": [name, null]})).await;
    assert_eq!(
        server.ok("read_query", json!({"query": "SELECT name FROM customer WHERE name = @n", "params": {"n": name}})).await["rows"],
        json!([[name]])
    );
    let blob = json!({"$blob": "AAEC"});
    assert_eq!(
        server.ok("read_query", json!({"query": "SELECT ?1, typeof(?1), length(?1)", "params": [blob]})).await["rows"],
        json!([[blob, "blob", 3]])
    );
}

#[tokio::test]
async fn the_schema_can_be_read_as_resources_and_completed() {
    let server = Server::start(SCHEMA, &[]);
    let read = async |uri: &str| {
        server.modern("resources/read", json!({"uri": uri})).send().await.unwrap().json::<Value>().await.unwrap()["result"]["contents"][0]["text"].clone()
    };
    let table = read("schema://tables/purchase").await;
    assert!(
        table.as_str().unwrap().starts_with("CREATE TABLE purchase")
            && table.as_str().unwrap().contains("CREATE INDEX purchase_customer"),
        "{table}"
    );
    assert!(read("schema://tables").await.as_str().unwrap().contains("CREATE VIEW spender"));
    let complete =
        json!({"ref": {"type": "ref/resource", "uri": "schema://tables/{table}"}, "argument": {"name": "table", "value": "C"}});
    let answer: Value = server.modern("completion/complete", complete).send().await.unwrap().json().await.unwrap();
    assert_eq!(answer["result"]["completion"], json!({"values": ["customer"], "total": 1, "hasMore": false}));
}

#[tokio::test]
async fn integers_beyond_what_a_double_holds_are_text_outside_of_rows_too() {
    let server = Server::start("CREATE TABLE msg (id INTEGER PRIMARY KEY, t)", &[]);
    for (id, told) in [
        ("1254071346418286654", json!("1254071346418286654")),
        ("9007199254740993", json!("9007199254740993")),
        ("9007199254740991", json!(9_007_199_254_740_991_i64)),
        ("-9223372036854775808", json!("-9223372036854775808")),
        ("9223372036854775807", json!("9223372036854775807")),
    ] {
        let insert = format!("INSERT INTO msg VALUES ({id}, 'hi') RETURNING id");
        let result = server.call("write_query", json!({"query": insert})).await;
        assert_eq!(result["structuredContent"]["last_insert_rowid"], told);
        assert_eq!(result["structuredContent"]["returned"]["rows"], json!([[told]]));
        assert!(result["content"][0]["text"].as_str().unwrap().contains(&format!("last rowid {id}")), "{result}");
    }
}

#[tokio::test]
async fn any_statement_finds_its_way_by_what_sqlite_says_of_it() {
    let server = Server::start(SCHEMA, &[]);
    for (sql, expected) in [
        ("WITH b AS (SELECT 1 AS i) UPDATE purchase SET cents = 1 WHERE id IN (SELECT i FROM b)", json!({"affected_rows": 1})),
        (
            "WITH v(n) AS (VALUES ('w')) INSERT INTO customer (name) SELECT n FROM v;",
            json!({"affected_rows": 1, "last_insert_rowid": 3}),
        ),
        (
            "WITH v(i, n) AS (VALUES (3, 'z')) REPLACE INTO customer (id, name) SELECT i, n FROM v",
            json!({"affected_rows": 1, "last_insert_rowid": 3}),
        ),
        (
            "/* gone */ WITH b AS (SELECT 3 AS i) DELETE FROM customer WHERE id IN (SELECT i FROM b) -- really",
            json!({"affected_rows": 1}),
        ),
        ("create table made (a);", json!({"message": "Created."})),
    ] {
        assert_eq!(server.ok("execute_sql_query", json!({"query": sql})).await, expected, "{sql}");
    }
    assert_eq!(
        server.ok("execute_sql_query", json!({"query": "WITH a AS (SELECT 1 AS x) SELECT x FROM a"})).await["rows"],
        json!([[1]])
    );
    let error = server.error("read_query", json!({"query": "WITH a AS (SELECT 1) DELETE FROM customer"})).await;
    assert!(error.contains("use write_query"), "{error}");
}

#[tokio::test]
async fn a_batch_says_which_statement_failed_and_where() {
    let server = Server::start(SCHEMA, &[]);
    let error = server
        .error("write_batch", json!({"statements": [{"query": "INSERT INTO customer (name) VALUES ('x')"}, {"query": "UPDATE customer SET nmae = 'x'"}]}))
        .await;
    assert!(error.starts_with("statement 2 of 2, and so nothing of the batch was kept: no such column: nmae"), "{error}");
    assert!(error.contains("Did you mean \"name\"?"), "{error}");
    assert_eq!(server.rows("SELECT count(*) FROM customer").await, json!([[2]]));
}

#[tokio::test]
async fn a_statement_out_of_time_comes_with_its_plan_and_the_index_that_would_help() {
    let server = Server::start(
        "CREATE TABLE big (id INTEGER PRIMARY KEY, k INTEGER, other INTEGER);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000) INSERT INTO big SELECT i, i % 1000, i FROM n",
        &["--statement-timeout-ms", "100"],
    );
    let error = server
        .error(
            "read_query",
            json!({"query": "SELECT count(*) FROM big a, big b, big c WHERE b.k = 5 AND a.k + b.k + c.k > random()"}),
        )
        .await;
    assert!(error.contains("The plan:\n  SCAN"), "{error}");
    assert!(error.contains("CREATE INDEX big_k ON big (k)"), "{error}");
}

#[tokio::test]
async fn full_text_search_and_foreign_keys_work() {
    let server = Server::start(SCHEMA, &[]);
    server.ok("create_table", json!({"query": "CREATE VIRTUAL TABLE note USING fts5(body)"})).await;
    server.ok("write_query", json!({"query": "INSERT INTO note VALUES (?), (?)", "params": ["a quick fox", "a lazy dog"]})).await;
    assert_eq!(server.rows("SELECT body FROM note WHERE note MATCH 'fox'").await, json!([["a quick fox"]]));
    let error = server.error("write_query", json!({"query": "INSERT INTO purchase (customer_id) VALUES (99)"})).await;
    assert!(error.contains("FOREIGN KEY"), "{error}");
    server.ok("write_query", json!({"query": "DELETE FROM customer WHERE id = 1"})).await;
    assert_eq!(server.rows("SELECT count(*) FROM purchase").await, json!([[1]]));
    let tables = server.ok("list_tables", json!({})).await;
    let names: Vec<_> = tables["tables"].as_array().unwrap().iter().map(|table| table["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["customer", "note", "purchase", "spender"]);
}

#[tokio::test]
async fn a_view_that_cannot_be_read_hides_nothing_else() {
    let server = Server::start("CREATE TABLE bird (id INTEGER PRIMARY KEY, colour TEXT)", &[]);
    for view in ["CREATE VIEW circle AS SELECT * FROM circle", "CREATE VIEW lost AS SELECT * FROM gone"] {
        server.ok("create_table", json!({"query": view})).await;
    }
    let found = server.ok("search_schema", json!({"text": "COL"})).await;
    assert_eq!(found["matches"], json!([{"table": "bird", "column": "colour", "type": "TEXT"}]));
    for (tool, arguments, says) in [
        ("read_query", json!({"query": "SELECT colur FROM bird"}), "Did you mean \"colour\"?"),
        ("describe_table", json!({"table_name": "brid"}), "Did you mean \"bird\"?"),
        ("read_query", json!({"query": "SELECT * FROM circle"}), "circularly defined"),
    ] {
        let error = server.error(tool, arguments).await;
        assert!(error.contains(says), "{tool}: {error}");
    }
    let described = server.call("describe_table", json!({"table_name": "circle"})).await;
    assert_eq!(described["structuredContent"]["columns"], json!([]));
    assert!(described["content"][0]["text"].as_str().unwrap().contains("CREATE VIEW circle AS"), "{described}");
}

#[tokio::test]
async fn nothing_to_run_is_said_in_words() {
    let server = Server::start("", &[]);
    for tool in ["read_query", "write_query", "execute_sql_query"] {
        for sql in ["", " \n", "-- nothing", "/* nothing */ ;"] {
            let error = server.error(tool, json!({"query": sql})).await;
            assert!(error.contains("the SQL is empty"), "{tool} {sql:?}: {error}");
        }
    }
}
