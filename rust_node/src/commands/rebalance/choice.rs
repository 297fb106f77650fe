//! Chooses the supervisor of a rebalance and the nodes that have it.

use std::collections::BTreeSet;

use crate::commands::agent::NoAnswer;
use crate::commands::exit::Exit;
use crate::commands::nodes::NodeLine;

/// A node that has the supervisor, or may have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) name: String,
    /// `None` if the node has not described itself.
    pub(super) servers: Option<u64>,
    /// Why this node cannot be asked.
    pub(super) error: Option<NoAnswer>,
}

/// What a node has to know, by its description, to be asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Need {
    pub(super) feature: &'static str,
    /// The flags of the command that need it.
    pub(super) flags: &'static str,
}

/// Returns the named supervisor, or the only one, and the nodes that have it or may have it. `needs` are those of the
/// request.
pub(super) fn choose(
    lines: &[NodeLine],
    given: Option<&str>,
    needs: &[Need],
) -> Result<(String, Vec<Asked>), (String, Exit)> {
    if lines.iter().all(NodeLine::is_unreachable) {
        return Err(("no node could be reached".to_owned(), Exit::Unreachable));
    }
    let known: BTreeSet<&str> =
        lines.iter().flat_map(|line| &line.supervisors).map(|supervisor| &*supervisor.name).collect();
    let all = || known.iter().copied().collect::<Vec<_>>().join(", ");
    let wanted = given.map(|given| given.strip_prefix("Elixir.").unwrap_or(given));
    let supervisor = match (wanted, known.first()) {
        (_, None) => return Err(("no node has a supervisor with a Drainer".to_owned(), Exit::Refused)),
        (Some(wanted), _) if known.contains(wanted) => wanted,
        (Some(wanted), _) => return Err((format!("no node has {wanted}, {}", hint(wanted, &known)), Exit::Refused)),
        (None, Some(only)) if known.len() == 1 => only,
        (None, Some(_)) => {
            return Err((format!("there are several, --supervisor takes one of: {}", all()), Exit::Settings));
        }
    };
    let asked = lines.iter().filter_map(|line| {
        if line.error.is_some() {
            return Some(Asked { name: line.name.clone(), servers: None, error: line.error.clone() });
        }
        let found = line.supervisors.iter().find(|found| found.name == supervisor)?;
        let release = line.library.as_deref().unwrap_or("of an unknown release");
        let ignored = needs.iter().find(|need| !line.knows.iter().any(|known| known == need.feature));
        let missing = if found.cordoned.is_none() { Some("rebalance") } else { ignored.map(|need| need.flags) };
        let too_old = |missing| NoAnswer::Refused(format!("its durable_handoff {release} does not know {missing}"));
        Some(Asked { name: line.name.clone(), servers: Some(found.servers), error: missing.map(too_old) })
    });
    Ok((supervisor.to_owned(), asked.collect()))
}

fn hint(wanted: &str, known: &BTreeSet<&str>) -> String {
    let distance = |known: &&&str| strsim::damerau_levenshtein(wanted, known);
    match known.iter().min_by_key(distance) {
        Some(near) if distance(&near) <= 1 + wanted.chars().count() / 4 => format!("did you mean {near}?"),
        _ => format!("there is: {}", known.iter().copied().collect::<Vec<_>>().join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::rebalance::RebalanceFlags;
    use crate::service::overview::SupervisorLine;

    fn line(node: &str, supervisors: &[&str], cordoned: Option<bool>) -> NodeLine {
        let supervisor = |name: &&str| SupervisorLine {
            name: (*name).to_owned(),
            release: None,
            age_s: None,
            servers: 7,
            draining: false,
            cordoned,
        };
        let supervisors = supervisors.iter().map(supervisor).collect();
        let library = Some("0.1.0".to_owned());
        NodeLine { name: node.to_owned(), library, error: None, supervisors, knows: Vec::new() }
    }

    #[test]
    fn the_only_supervisor_needs_no_name_and_nodes_without_it_are_not_asked() {
        let lines = [line("a@h", &["Sup"], Some(false)), line("b@h", &[], None), line("c@h", &["Sup"], None)];
        let (supervisor, asked) = choose(&lines, None, &[]).expect("one");
        assert_eq!((&*supervisor, asked.len(), asked[0].error.is_none()), ("Sup", 2, true));
        assert_eq!(
            asked[1].error.as_ref().map(NoAnswer::text),
            Some("its durable_handoff 0.1.0 does not know rebalance")
        );
        assert_eq!(choose(&lines, Some("Elixir.Sup"), &[]).expect("named").0, "Sup");
    }

    #[test]
    fn a_node_that_would_ignore_a_flag_is_not_asked() {
        let flags = RebalanceFlags {
            supervisor: None,
            timeout_ms: None,
            after_ms: Some(0),
            tolerance: Some(0.1),
            min_servers: None,
            max_per_second: None,
            dry_run: false,
            json: false,
        };
        let knowing = |name, knows: &[&str]| NodeLine {
            knows: knows.iter().map(|feature| (*feature).to_owned()).collect(),
            ..line(name, &["Sup"], Some(false))
        };
        let lines = [
            knowing("a@h", &["rebalance_settings", "rebalance_after_ms"]),
            knowing("b@h", &["rebalance_settings"]),
            knowing("c@h", &[]),
        ];
        let (_, asked) = choose(&lines, None, &flags.needs()).expect("one");
        let errors: Vec<_> = asked.iter().map(|asked| asked.error.as_ref().map(NoAnswer::text)).collect();
        assert_eq!(
            errors,
            [
                None,
                Some("its durable_handoff 0.1.0 does not know --after-ms"),
                Some("its durable_handoff 0.1.0 does not know --tolerance, --min-servers and --max-per-second"),
            ]
        );
        let plain = RebalanceFlags { after_ms: None, tolerance: None, ..flags };
        let (_, asked) = choose(&lines, None, &plain.needs()).expect("one");
        assert!(asked.iter().all(|asked| asked.error.is_none()));
    }

    #[test]
    fn a_wrong_or_missing_name_is_refused_with_a_list_of_supervisors() {
        let lines = [line("a@h", &["MyApp.Durable", "Other"], Some(false))];
        let error = |given| choose(&lines, given, &[]).expect_err("an error");
        assert_eq!(error(Some("MyApp.Durabel")).0, "no node has MyApp.Durabel, did you mean MyApp.Durable?");
        assert!(error(Some("Quite.Different")).0.contains("there is: MyApp.Durable, Other"));
        assert_eq!(error(None).1, Exit::Settings);
        assert_eq!(choose(&[], None, &[]).expect_err("no node").1, Exit::Unreachable);
    }
}
