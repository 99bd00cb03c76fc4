//! What fuzzing begins with and what it has found (fuzz/), without the fuzzer.

#[path = "../../fuzz/world.rs"]
mod world;

use std::path::Path;

use crate::statements::{REFUSED, SCHEMA};
use world::World;

#[test]
fn what_fuzzing_begins_with_is_answered() {
    let mut world = World::new(SCHEMA);
    for seed in world::seeds(REFUSED.iter().map(ToString::to_string)) {
        world.try_input(&seed);
    }
}

#[test]
fn what_fuzzing_found_is_answered() {
    let found = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/found");
    let mut world = World::new(SCHEMA);
    let mut tried = 0;
    for entry in std::fs::read_dir(found).unwrap() {
        world.try_input(&std::fs::read(entry.unwrap().path()).unwrap());
        tried += 1;
    }
    assert!(tried >= 20, "{tried}");
}
