//! Google Cloud Storage: the part of its XML API that conditional storage needs, after Google's reference: objects by
//! generation, `x-goog-if-generation-match` on writes and deletions (0: there is none). The token is `test`, or one that
//! `credentials` has given out.

use std::sync::{Mutex, PoisonError};

use hyper::{Method, StatusCode};

use crate::bucket::{BUCKET, Bucket, MODIFIED, Object};
use crate::credentials;
use crate::http::{Answer, Request};

#[derive(Debug, Default)]
pub(crate) struct Google {
    bucket: Mutex<Bucket>,
}

impl Google {
    pub(crate) fn answer(&self, request: &Request) -> Answer {
        self.try_answer(request).unwrap_or_else(|(status, code)| Answer::error(status, code))
    }

    fn try_answer(&self, request: &Request) -> Result<Answer, (StatusCode, &'static str)> {
        let token = request.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
        if !token.is_some_and(|token| token == "test" || credentials::is_ours(token)) {
            return Err((StatusCode::UNAUTHORIZED, "AuthenticationRequired"));
        }
        let (name, key) = request.bucket_and_key();
        if name != BUCKET {
            return Err((StatusCode::NOT_FOUND, "NoSuchBucket"));
        }
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        match request.method {
            Method::GET if key.is_empty() => {
                Ok(bucket.list(request, &request.query("prefix").unwrap_or_default(), quoted))
            }
            Method::GET | Method::HEAD => {
                let object = bucket.objects.get(&key).ok_or((StatusCode::NOT_FOUND, "NoSuchKey"))?;
                Ok(described(Answer::new(StatusCode::OK).with_body("application/json", object.body.clone()), object))
            }
            Method::PUT => {
                check(&bucket, &key, request)?;
                let object = bucket.insert(key, request.body.clone());
                Ok(described(Answer::new(StatusCode::OK), &object))
            }
            Method::DELETE => {
                if !bucket.objects.contains_key(&key) {
                    return Err((StatusCode::NOT_FOUND, "NoSuchKey"));
                }
                check(&bucket, &key, request)?;
                bucket.objects.remove(&key);
                Ok(Answer::new(StatusCode::NO_CONTENT))
            }
            _ => Err((StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed")),
        }
    }
}

fn check(bucket: &Bucket, key: &str, request: &Request) -> Result<(), (StatusCode, &'static str)> {
    let current = bucket.objects.get(key).map_or(0, |object| object.generation);
    match request.header("x-goog-if-generation-match") {
        Some(expected) if expected.parse() != Ok(current) => {
            Err((StatusCode::PRECONDITION_FAILED, "PreconditionFailed"))
        }
        _ => Ok(()),
    }
}

fn described(answer: Answer, object: &Object) -> Answer {
    answer
        .with_header("etag", &quoted(&object.etag))
        .with_header("last-modified", MODIFIED)
        .with_header("x-goog-generation", &object.generation.to_string())
}

fn quoted(etag: &str) -> String {
    format!("\"{etag}\"")
}
