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

/// The only label of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Kind(pub &'static str);

impl EncodeLabelSet for Kind {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), std::fmt::Error> {
        EncodeLabelSet::encode(&[("kind", self.0)], encoder)
    }
}

/// All counters of one node.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    /// Nodes connected now.
    pub connections: Gauge,
    /// Nodes that are not connected now, by cause.
    pub unreachable: Family<Kind, Gauge>,
    /// Handshakes by how they ended: `accepted`, `dialled`, or what went wrong.
    pub handshakes: Family<Kind, Counter>,
    /// Connections ended by this node, by reason.
    pub dropped: Family<Kind, Counter>,
    /// Frames and messages refused, by reason.
    pub refused: Family<Kind, Counter>,
    /// Times a peer's socket was not read because too many of its messages waited.
    pub throttled: Counter,
    /// Messages of the drain protocol received, by kind.
    pub messages: Family<Kind, Counter>,
    /// Drains open now.
    pub drains: Gauge,
    /// Drains by how they ended.
    pub drains_ended: Family<Kind, Counter>,
    /// Attempts by outcome.
    pub attempts: Family<Kind, Counter>,
    pub moved: Counter,
    /// Gaps as reports have them: from the start of the attempt that stopped a server until it was moved, an
    /// upper bound of the time it was unavailable.
    pub gap_seconds: Histogram,
    /// Limits of all storages together.
    pub limit: Gauge,
    /// Attempts in flight of all storages together.
    pub in_flight: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Metrics {
            registry: Arc::default(),
            connections: Gauge::default(),
            unreachable: Family::default(),
            handshakes: Family::default(),
            dropped: Family::default(),
            refused: Family::default(),
            throttled: Counter::default(),
            messages: Family::default(),
            drains: Gauge::default(),
            drains_ended: Family::default(),
            attempts: Family::default(),
            moved: Counter::default(),
            // 1 ms to 65 s.
            gap_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 17)),
            limit: Gauge::default(),
            in_flight: Gauge::default(),
        };
        let mut registry = Registry::with_prefix("durable_handoff");
        registry.register("connections", "BEAM nodes connected", metrics.connections.clone());
        let unreachable = metrics.unreachable.clone();
        registry.register("unreachable", "Nodes that are not connected and should be, by cause", unreachable);
        registry.register("handshakes", "Handshakes by how they ended", metrics.handshakes.clone());
        registry.register("peers_dropped", "Connections ended by this node, by reason", metrics.dropped.clone());
        registry.register("refused", "Frames and messages refused, by reason", metrics.refused.clone());
        registry.register("throttled", "Times a peer was not read because it sent too much", metrics.throttled.clone());
        registry.register("messages", "Messages of the drain protocol, by kind", metrics.messages.clone());
        registry.register("drains", "Drains open", metrics.drains.clone());
        registry.register("drains_ended", "Drains by how they ended", metrics.drains_ended.clone());
        registry.register("attempts", "Attempts by outcome", metrics.attempts.clone());
        registry.register("moved", "Servers moved", metrics.moved.clone());
        registry.register(
            "gap_seconds",
            "From the start of the attempt that stopped a server until it was moved",
            metrics.gap_seconds.clone(),
        );
        registry.register("limit", "Attempts that may be in flight, all storages", metrics.limit.clone());
        registry.register("in_flight", "Attempts in flight, all storages", metrics.in_flight.clone());
        metrics.registry = Arc::new(registry);
        metrics
    }
}

impl Metrics {
    /// All metrics as text.
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _never = encode(&mut text, &self.registry);
        text
    }

    /// Counts one more of a kind.
    pub fn count(family: &Family<Kind, Counter>, kind: &'static str) {
        family.get_or_create(&Kind(kind)).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_in_the_text() {
        let metrics = Metrics::default();
        Metrics::count(&metrics.refused, "too_deep");
        metrics.clone().connections.set(3);
        let text = metrics.render();
        assert!(text.contains("durable_handoff_refused_total{kind=\"too_deep\"} 1"), "{text}");
        assert!(text.contains("durable_handoff_connections 3"), "{text}");
    }
}
