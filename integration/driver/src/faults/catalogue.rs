//! All faults. A new one is an entry in the file of the part that it affects.

mod clock;
mod deploy;
mod network;
mod rust_node;
mod several;
mod size;
mod source;
mod store;
mod target;

use super::Fault;

/// All faults, in the order of the table.
pub fn all() -> Vec<&'static Fault> {
    [
        target::FAULTS,
        source::FAULTS,
        network::FAULTS,
        rust_node::FAULTS,
        store::FAULTS,
        clock::FAULTS,
        several::FAULTS,
        deploy::FAULTS,
        size::FAULTS,
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_has_a_unique_name_a_description_and_a_result() {
        let faults = all();
        for (at, fault) in faults.iter().enumerate() {
            assert!(
                fault.name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'),
                "{}",
                fault.name
            );
            assert!(!faults[..at].iter().any(|other| other.name == fault.name), "{} is there twice", fault.name);
            assert!(fault.done.ends_with('.') && fault.happens.ends_with('.'), "{}", fault.name);
            assert!(fault.setup.full < fault.setup.nodes, "{} leaves no node to move to", fault.name);
        }
    }
}
