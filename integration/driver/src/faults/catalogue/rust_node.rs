//! Faults of the Rust node. The BEAM nodes lose only their coordinator.

use crate::faults::{Expected, Fault, Setup, WITH_RUST_NODE, lasting};
use crate::rust_node::RustNode;

/// The Rust node is lost in the middle of the drain.
const LOST: Setup = Setup { expected: &[Expected::LosesRustNode], ..lasting(WITH_RUST_NODE) };

pub const FAULTS: &[Fault] = &[
    Fault {
        name: "rust-node-well",
        done: "No fault; the faults of the Rust node are compared with this run.",
        happens: "The Rust node decides until the end.",
        setup: Setup { expected: &[Expected::RustNodeDecides], ..WITH_RUST_NODE },
        inject: |scene| scene.terminate(scene.source()),
    },
    Fault {
        name: "rust-node-killed",
        done: "The Rust node is killed (SIGKILL) at a random point of the drain.",
        happens: "The source continues with the remaining servers and its own engine.",
        setup: LOST,
        inject: |scene| {
            scene.drain_until_moved(0.0, 0.8)?;
            scene.cluster.rust_node().map_or(Ok(()), RustNode::kill)
        },
    },
    Fault {
        name: "rust-node-paused",
        done: "The Rust node stops answering (SIGSTOP) at a random point of the drain, keeps its connections, and continues 6 \
               s later with outdated orders.",
        happens: "After two seconds without a message the source continues with its own engine. Later orders of the Rust node \
                  are ignored.",
        setup: LOST,
        inject: |scene| {
            scene.drain_until_moved(0.0, 0.8)?;
            scene.cluster.rust_node().map_or(Ok(()), RustNode::pause)?;
            scene.let_pass(6_000, "the Rust node does not answer")?;
            scene.cluster.rust_node().map_or(Ok(()), RustNode::resume)
        },
    },
    Fault {
        name: "rust-node-partitioned",
        done: "The connection between the source and the Rust node is dropped, and stays dropped, at a random point of the drain.",
        happens: "The source continues with its own engine at once.",
        setup: LOST,
        inject: |scene| {
            let source = scene.source();
            scene.drain_until_moved(0.0, 0.8)?;
            scene.part_from_rust_node(source)
        },
    },
];
