//! Where the servers' states are kept during a run.

use serde::Serialize;

/// The valid values of `--store`, for messages.
const TAKES: &str = "takes simulated, file:///DIR, s3://BUCKET/PATH, gs://BUCKET/PATH or az://CONTAINER/PATH";

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Store {
    /// `DurableHandoff.Store` in a directory that is created for the run and removed after it.
    Directory,
    /// `DurableHandoff.Store` at a URL.
    Url {
        /// The URL. Every column has a folder below it.
        url: String,
    },
    /// One process on a node of its own, with configurable latency.
    Simulated {
        latency_ms: u32,
        /// Requests it serves at once; `None` for any number.
        slots: Option<u32>,
        /// Part of the requests that fail and change nothing.
        error_rate: f64,
    },
}

pub const USUAL_LATENCY_MS: u32 = 10;

impl Store {
    /// The store that the flags describe, or why the flags contradict each other.
    pub fn from_flags(
        given: Option<&str>,
        latency_ms: Option<u32>,
        slots: Option<u32>,
        error_rate: Option<f64>,
    ) -> Result<Self, String> {
        let speed = [
            ("--latency-ms", latency_ms.is_some()),
            ("--slots", slots.is_some()),
            ("--error-rate", error_rate.is_some()),
        ];
        let simulated = || Self::Simulated {
            latency_ms: latency_ms.unwrap_or(USUAL_LATENCY_MS),
            slots,
            error_rate: error_rate.unwrap_or(0.0),
        };
        match (given, speed.iter().find(|(_, set)| *set)) {
            (None | Some("simulated"), Some(_)) | (Some("simulated"), None) => Ok(simulated()),
            (None, None) => Ok(Self::Directory),
            (Some(url), Some((flag, _))) => {
                Err(format!("{flag} sets the simulated store's behaviour and does not go with --store {url}"))
            }
            (Some(url), None) => Ok(Self::Url { url: url.to_owned() }),
        }
    }

    pub fn is_simulated(&self) -> bool {
        matches!(self, Self::Simulated { .. })
    }

    pub fn described(&self) -> String {
        match self {
            Self::Directory => "DurableHandoff.Store in a temporary directory (file://)".to_owned(),
            Self::Url { url } => format!("DurableHandoff.Store at {url}"),
            Self::Simulated { latency_ms, slots, error_rate } => {
                let slots =
                    slots.map_or("any number of requests at once".to_owned(), |n| format!("{n} requests at once"));
                let errors =
                    if *error_rate > 0.0 { format!(", {:.0} % fail", error_rate * 100.0) } else { String::new() };
                format!("simulated, {latency_ms} ms a request, {slots}{errors}")
            }
        }
    }
}

/// For clap: a value of `--store`.
pub fn parse(value: &str) -> Result<String, String> {
    let has_rest = |scheme: &str| value.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty());
    if value == "simulated" || has_rest("file:///") || ["s3://", "gs://", "az://"].into_iter().any(has_rest) {
        Ok(value.trim_end_matches('/').to_owned())
    } else if value.starts_with("memory:") {
        Err("memory: is the memory of one operating-system process, and the nodes of the demo are several; \
             --store simulated is one process that all of them use"
            .to_owned())
    } else {
        Err(TAKES.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_store_is_a_temporary_directory() {
        assert_eq!(Store::from_flags(None, None, None, None), Ok(Store::Directory));
    }

    #[test]
    fn a_flag_of_the_simulated_store_selects_that_store() {
        let chosen = Store::from_flags(None, None, Some(8), None);
        assert_eq!(chosen, Ok(Store::Simulated { latency_ms: 10, slots: Some(8), error_rate: 0.0 }));
        let chosen = Store::from_flags(Some("simulated"), Some(3), None, Some(0.1)).unwrap();
        assert_eq!(chosen.described(), "simulated, 3 ms a request, any number of requests at once, 10 % fail");
    }

    #[test]
    fn flags_of_the_simulated_store_are_refused_with_a_real_one() {
        let refused = Store::from_flags(Some("s3://bucket"), Some(10), None, None).unwrap_err();
        assert!(refused.contains("--latency-ms") && refused.contains("s3://bucket"), "{refused}");
    }

    #[test]
    fn memory_is_refused_with_a_reason_and_invalid_values_with_a_list_of_valid_ones() {
        assert!(parse("memory:x").unwrap_err().contains("one operating-system process"));
        for nonsense in ["", "s3://", "file://relative", "http://x", "Simulated"] {
            assert_eq!(parse(nonsense).unwrap_err(), TAKES, "{nonsense}");
        }
        assert_eq!(parse("file:///tmp/x/").unwrap(), "file:///tmp/x");
    }
}
