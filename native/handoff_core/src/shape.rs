//! Types whose serialized shape differs from their Rust type.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::balance::Idle;
use crate::event::Blame;
use crate::ids::ModuleId;
use crate::reason::Reason;
use crate::report::{Ended, WaitsFor};
use crate::view::{Capacity, Resources, Scope, Usage};

/// `{Scope, Current, Limit}`
impl From<(Scope, f64, f64)> for Capacity {
    fn from((scope, current, limit): (Scope, f64, f64)) -> Self {
        Capacity { scope, current, limit }
    }
}

impl From<Capacity> for (Scope, f64, f64) {
    fn from(Capacity { scope, current, limit }: Capacity) -> Self {
        (scope, current, limit)
    }
}

/// `total`, or the number of a module.
impl Serialize for Scope {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Scope::Total => serializer.serialize_unit_variant("Scope", 0, "total"),
            Scope::Module(module) => module.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Scope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Scope;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("total or the number of a module")
            }
            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Scope, E> {
                if name == "total" {
                    Ok(Scope::Total)
                } else {
                    Err(E::invalid_value(serde::de::Unexpected::Str(name), &self))
                }
            }
            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Scope, E> {
                let wrong = || E::invalid_value(serde::de::Unexpected::Unsigned(number), &self);
                u32::try_from(number).map(|index| Scope::Module(ModuleId(index))).map_err(|_| wrong())
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// [`Resources`] in the flat shape of heartbeats.
#[derive(Serialize, Deserialize)]
pub(crate) struct Machine {
    cpu: Option<f64>,
    max_cpu: Option<f64>,
    memory: Option<f64>,
    max_memory: Option<f64>,
    disk: Option<f64>,
    max_disk: Option<f64>,
}

impl From<Machine> for Resources {
    fn from(it: Machine) -> Self {
        Resources {
            cpu: Usage { used: it.cpu, max: it.max_cpu },
            memory: Usage { used: it.memory, max: it.max_memory },
            disk: Usage { used: it.disk, max: it.max_disk },
        }
    }
}

impl From<Resources> for Machine {
    fn from(Resources { cpu, memory, disk }: Resources) -> Self {
        Machine {
            cpu: cpu.used,
            max_cpu: cpu.max,
            memory: memory.used,
            max_memory: memory.max,
            disk: disk.used,
            max_disk: disk.max,
        }
    }
}

/// Counts by reason. A reason of a later release is left out.
///
/// # Errors
/// When the term is not a map of counts.
pub fn known_reasons<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<Reason, u64>, D::Error> {
    let counts = BTreeMap::<String, u64>::deserialize(deserializer)?;
    Ok(Reason::ALL.into_iter().filter_map(|reason| Some((reason, *counts.get(reason.name())?))).collect())
}

/// Why a rebalance moved nothing, or stopped early; `None` for a reason of a later release.
///
/// # Errors
/// When the term is not a name.
pub(crate) fn known_idle<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Idle>, D::Error> {
    deserializer.deserialize_any(Known(|name| Idle::ALL.into_iter().find(|idle| idle.name() == name)))
}

/// Why a drain ended; `None` for a reason of a later release.
///
/// # Errors
/// When the term is not a name.
pub(crate) fn known_ended<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Ended>, D::Error> {
    deserializer.deserialize_any(Known(|name| Ended::ALL.into_iter().find(|ended| ended.name() == name)))
}

/// What a drain waits for; `None` for a reason of a later release.
///
/// # Errors
/// When the term is not a name.
pub(crate) fn known_waits_for<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<WaitsFor>, D::Error> {
    deserializer.deserialize_any(Known(|name| WaitsFor::ALL.into_iter().find(|waits_for| waits_for.name() == name)))
}

/// A name that may be of a later release, alone or with fields.
struct Known<T>(fn(&str) -> Option<T>);

impl<'de, T> serde::de::Visitor<'de> for Known<T> {
    type Value = Option<T>;
    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a name, or none")
    }
    fn visit_unit<E>(self) -> Result<Option<T>, E> {
        Ok(None)
    }
    fn visit_str<E>(self, name: &str) -> Result<Option<T>, E> {
        Ok(self.0(name))
    }
    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut fields: A) -> Result<Option<T>, A::Error> {
        while fields.next_element::<serde::de::IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

/// `untouched` alone stands for `{untouched, unknown}`.
pub(crate) fn blame_or_unknown<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Blame, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(Blame::Unknown))
}

/// Shared text.
pub(crate) mod text {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(text)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<str>, D::Error> {
        String::deserialize(deserializer).map(Arc::from)
    }
}

/// A span in milliseconds.
pub(crate) mod millis {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::time::Micros;

    pub(crate) fn serialize<S: Serializer>(span: &Micros, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(span.as_millis())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Micros, D::Error> {
        u64::deserialize(deserializer).map(Micros::from_millis)
    }
}

/// A map with text for keys, as a list of pairs.
#[allow(missing_docs, clippy::missing_errors_doc, reason = "the functions of a serde module")]
pub mod pairs {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(map: &BTreeMap<Arc<str>, u64>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(map.iter().map(|(name, count)| (&**name, count)))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<Arc<str>, u64>, D::Error> {
        let pairs = Vec::<(String, u64)>::deserialize(deserializer)?;
        Ok(pairs.into_iter().map(|(name, count)| (name.into(), count)).collect())
    }
}
