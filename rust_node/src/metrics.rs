//! The node's metrics, in Prometheus' format.
//!
//! Guarantee: labels come from fixed sets in this program, never from a peer, so the number of series is
//! bounded.

use std::sync::Arc;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, LabelSetEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// The only label of a metric family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Kind(pub &'static str);

impl EncodeLabelSet for Kind {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), std::fmt::Error> {
        EncodeLabelSet::encode(&[("kind", self.0)], encoder)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Gauge,
    Counter,
    /// One gauge for each `kind`.
    Gauges,
    Counters,
    Histogram,
}

/// A metric as the documentation lists it.
#[derive(Debug, Clone, Copy)]
pub struct Described {
    /// The name without the `_total` of a counter.
    pub name: &'static str,
    pub help: &'static str,
    pub form: Form,
}

macro_rules! metrics {
    ($($(#[$about:meta])* $field:ident: $form:ident, $name:literal, $help:literal;)*) => {
        #[derive(Debug, Clone)]
        pub struct Metrics {
            registry: Arc<Registry>,
            $($(#[$about])* pub $field: metrics!(@type $form),)*
        }

        impl Default for Metrics {
            fn default() -> Self {
                let mut metrics = Metrics { registry: Arc::default(), $($field: metrics!(@new $form),)* };
                let mut registry = Registry::with_prefix(PREFIX);
                $(registry.register($name, $help, metrics.$field.clone());)*
                metrics.registry = Arc::new(registry);
                metrics
            }
        }

        impl Metrics {
            pub const DESCRIBED: &[Described] =
                &[$(Described { name: concat!("durable_handoff_", $name), help: $help, form: Form::$form },)*];
        }
    };
    (@type Gauge) => { Gauge };
    (@type Counter) => { Counter };
    (@type Gauges) => { Family<Kind, Gauge> };
    (@type Counters) => { Family<Kind, Counter> };
    (@type Histogram) => { Histogram };
    // Buckets from 1 ms to 65 s.
    (@new Histogram) => { Histogram::new(exponential_buckets(0.001, 2.0, 17)) };
    (@new $form:ident) => { Default::default() };
}

const PREFIX: &str = "durable_handoff";

metrics! {
    /// Without hidden nodes.
    connections: Gauge, "connections", "BEAM nodes connected";
    unreachable: Gauges, "unreachable", "Nodes that are not connected and should be, by cause";
    cordoned: Gauge, "cordoned", "Supervisors that are cordoned, of all nodes";
    /// The kinds are `accepted`, `dialled`, and the causes of failures.
    handshakes: Counters, "handshakes", "Handshakes by how they ended";
    dropped: Counters, "peers_dropped", "Connections ended by this node, by reason";
    refused: Counters, "refused", "Frames and messages refused, by reason";
    /// A socket was not read because too many messages of its peer waited.
    throttled: Counter, "throttled", "Times a peer was not read because it sent too much";
    messages: Counters, "messages", "Messages of the drain protocol, by kind";
    drains: Gauge, "drains", "Drains open";
    drains_ended: Counters, "drains_ended", "Drains by how they ended";
    attempts: Counters, "attempts", "Attempts by outcome";
    moved: Counter, "moved", "Servers moved";
    left: Counters, "left", "Servers that drains have left, by reason";
    /// As in reports, this is an upper bound of the time in which a server was unavailable.
    gap_seconds: Histogram, "gap_seconds", "From the start of the attempt that stopped a server until it was moved";
    limit: Gauge, "limit", "Attempts that may be in flight, all storages";
    in_flight: Gauge, "in_flight", "Attempts in flight, all storages";
}

impl Metrics {
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _never = encode(&mut text, &self.registry);
        text
    }

    /// The metrics in Prometheus' own text format, where a counter's type carries the name of its series.
    pub fn render_for_prometheus(&self) -> String {
        let text = self.render();
        let is_counter = |name: &str| text.contains(&format!("# TYPE {name} counter\n"));
        let lines = text.lines().filter(|line| *line != "# EOF").map(|line| {
            let mut words = line.splitn(4, ' ');
            match (words.next(), words.next(), words.next(), words.next()) {
                (Some("#"), Some(what), Some(name), Some(rest)) if is_counter(name) => {
                    format!("# {what} {name}_total {rest}\n")
                }
                _ => format!("{line}\n"),
            }
        });
        lines.collect()
    }

    /// Creates the series of these kinds, with 0. Prometheus computes the increase of a series from its first
    /// value on, so an alert does not fire for an event that creates the series.
    pub fn create(family: &Family<Kind, Counter>, kinds: impl IntoIterator<Item = &'static str>) {
        kinds.into_iter().for_each(|kind| drop(family.get_or_create(&Kind(kind))));
    }

    pub fn count(family: &Family<Kind, Counter>, kind: &'static str) {
        family.get_or_create(&Kind(kind)).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counted_events_are_in_the_text() {
        let metrics = Metrics::default();
        Metrics::count(&metrics.refused, "too_deep");
        metrics.clone().connections.set(3);
        let text = metrics.render();
        assert!(text.contains("durable_handoff_refused_total{kind=\"too_deep\"} 1"), "{text}");
        assert!(text.contains("durable_handoff_connections 3"), "{text}");
    }

    #[test]
    fn prometheus_own_format_has_the_type_of_a_counter_under_its_series_name() {
        let metrics = Metrics::default();
        metrics.moved.inc_by(2);
        let (open, own) = (metrics.render(), metrics.render_for_prometheus());
        assert!(open.ends_with("# EOF\n") && open.contains("# TYPE durable_handoff_moved counter\n"), "{open}");
        assert!(!own.contains("EOF") && own.contains("# TYPE durable_handoff_moved_total counter\n"), "{own}");
        assert!(own.contains("# HELP durable_handoff_moved_total Servers moved"), "{own}");
        let series = |text: &str| text.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(series(&open), series(&own));
    }

    #[test]
    fn every_metric_is_described() {
        let text = Metrics::default().render();
        for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let name = line.split(' ').next().expect("a name");
            assert!(Metrics::DESCRIBED.iter().any(|described| described.name == name), "{name}");
        }
    }
}
