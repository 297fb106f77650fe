//! Services for credentials: metadata of EC2, ECS, EKS, Google and Azure, STS, token endpoints. Every
//! exchange succeeds with new credentials (`key-1`, `key-2`, ...), which expire after an hour.
//!
//! Every server provides these services at its own address, so that a script can make them fail independently
//! of the store.

use std::sync::atomic::{AtomicU64, Ordering};

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use hyper::{Method, StatusCode};

use crate::http::{Answer, Request};

const LASTS_S: u64 = 3_600;
const ROLE: &str = "handoff-role";
const EC2: &str = "/latest/meta-data/iam/security-credentials/";
const EC2_TOKEN: &str = "/latest/api/token";
const GOOGLE: &str = "/computeMetadata/v1/";
/// The path of `AWS_CONTAINER_CREDENTIALS_FULL_URI`, after the server's address.
const CONTAINER: &str = "/credentials";
const AZURE: &str = "/metadata/identity/oauth2/token";
const PREFIX: &str = "token-";

#[derive(Debug)]
pub(crate) struct Credentials {
    given: AtomicU64,
    lasts_s: AtomicU64,
}

impl Default for Credentials {
    fn default() -> Self {
        Self { given: AtomicU64::new(0), lasts_s: AtomicU64::new(LASTS_S) }
    }
}

/// Whether a request is an exchange for credentials, not for an object.
pub(crate) fn is_exchange(request: &Request) -> bool {
    let path = request.uri.path();
    match request.method {
        Method::POST => is_sts(request) || path == "/token" || path.ends_with("/oauth2/v2.0/token"),
        _ => {
            path == EC2_TOKEN || path == CONTAINER || path == AZURE || path.starts_with(EC2) || path.starts_with(GOOGLE)
        }
    }
}

/// Whether a bearer token was given out by this server.
pub(crate) fn is_ours(token: &str) -> bool {
    token.starts_with(PREFIX)
}

impl Credentials {
    /// Sets how many seconds new credentials last.
    pub(crate) fn last(&self, seconds: u64) {
        self.lasts_s.store(seconds, Ordering::Relaxed);
    }

    pub(crate) fn answer(&self, request: &Request) -> Answer {
        let path = request.uri.path();
        let text = |text: &str| Answer::new(StatusCode::OK).with_body("text/plain", text.to_owned());
        let json = |json: String| Answer::new(StatusCode::OK).with_body("application/json", json);
        if path == EC2_TOKEN {
            return text("session");
        }
        if path == EC2 {
            return text(ROLE);
        }
        if path.ends_with("/email") {
            return text("handoff@example.com");
        }
        let number = self.given.fetch_add(1, Ordering::Relaxed) + 1;
        let lasts = self.lasts_s.load(Ordering::Relaxed);
        let end = end(Utc::now(), lasts);
        if is_sts(request) {
            let body = format!(
                "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>\
                 <AccessKeyId>key-{number}</AccessKeyId><SecretAccessKey>secret</SecretAccessKey>\
                 <SessionToken>{PREFIX}{number}</SessionToken><Expiration>{end}</Expiration>\
                 </Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
            );
            return Answer::new(StatusCode::OK).with_body("text/xml", body);
        }
        if path == CONTAINER || path.starts_with(EC2) {
            return json(format!(
                "{{\"Code\":\"Success\",\"AccessKeyId\":\"key-{number}\",\"SecretAccessKey\":\"secret\",\
                 \"Token\":\"{PREFIX}{number}\",\"Expiration\":\"{end}\"}}"
            ));
        }
        let seconds = if path == AZURE { format!("\"{lasts}\"") } else { lasts.to_string() };
        json(format!(
            "{{\"access_token\":\"{PREFIX}{number}\",\"token_type\":\"Bearer\",\"expires_in\":{seconds},\"expires_on\":\"{}\"}}",
            Utc::now().timestamp().saturating_add_unsigned(lasts)
        ))
    }
}

fn is_sts(request: &Request) -> bool {
    request.query("Action").is_some_and(|action| action.starts_with("AssumeRole"))
}

fn end(now: DateTime<Utc>, lasts_s: u64) -> String {
    let lasts = i64::try_from(lasts_s).ok().and_then(TimeDelta::try_seconds).unwrap_or_default();
    (now + lasts).to_rfc3339_opts(SecondsFormat::Secs, true)
}
