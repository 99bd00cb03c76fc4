//! Any bytes, read as a call and run against a database (world.rs).

#![no_main]

#[path = "../../tests/it/statements.rs"]
mod statements;
#[path = "../world.rs"]
mod world;

use std::sync::{LazyLock, Mutex};

use libfuzzer_sys::fuzz_target;

static WORLD: LazyLock<Mutex<world::World>> = LazyLock::new(|| Mutex::new(world::World::new(statements::SCHEMA)));

/// Writes what fuzzing begins with, before the engine reads its folders.
fn write_seeds() {
    let Some(folder) = std::env::var_os("FUZZ_SEEDS") else { return };
    let statements = statements::REFUSED.iter().map(ToString::to_string).chain(statements::exhausting());
    for (number, seed) in world::seeds(statements).into_iter().enumerate() {
        std::fs::write(std::path::Path::new(&folder).join(format!("seed-{number}")), seed).expect("the folder of seeds");
    }
}

fuzz_target!(init: write_seeds(), |data: &[u8]| WORLD.lock().expect("a panic ends the process").try_input(data));
