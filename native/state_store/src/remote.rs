//! The stores behind a network: S3, Azure Blob Storage, Google Cloud Storage, by `object_store`.
//!
//! Where they differ:
//!
//! | | S3 | Azure | Google |
//! |---|---|---|---|
//! | a version is named by | etag | etag | generation |
//! | conditional deletion | AWS: `If-Match`, after a look; others: see `tombstone` | `If-Match`, after a look | `x-goog-if-generation-match` |
//! | etags in listings | with or without quotes: see `etags` | without the quotes, which are put back | of the content: looked up when a write names one |
//! | deleting an absent object | success; a read comes first | not found | not found |
//! | deleting the version that is there | after a look, without a condition except on AWS: a version that replaces it after the look is deleted | as a conditional deletion | after a look, as a conditional deletion |
//!
//! `answers` has the meaning of responses, `credentials` that of responses from services for credentials.
//!
//! `object_store` itself does not retry here: retries count against the limits of a request, see `retry`.

mod azure;
mod credentials;
mod error;
pub(crate) mod etags;
pub(crate) mod open;
mod profile;
mod wire;

use std::sync::Arc;

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue, IF_MATCH};
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path;
use object_store::{
    GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, UpdateVersion,
};
use tokio::time::Instant;

use crate::answers::{Protocol, Request};
use crate::object::Target;
use crate::{Condition, Error, Object, ObjectRef, Page};
use credentials::Refresh;
use etags::Etags;
use wire::{Exchange, Seen};

const IF_GENERATION_MATCH: HeaderName = HeaderName::from_static("x-goog-if-generation-match");

pub(crate) struct Remote {
    protocol: Protocol,
    bucket: String,
    store: Arc<dyn ObjectStore>,
    pages: Arc<dyn PaginatedListStore>,
    azure: Option<azure::Deletions>,
    /// Where credentials come from a service.
    refresh: Option<Arc<dyn Refresh>>,
    etags: Etags,
    /// Whether the endpoint is custom. It may have replicas, and then a header makes the leader answer.
    custom_endpoint: bool,
    /// The provider documents that a conditional deletion and a write of the same version cannot both succeed.
    deletes_atomically: bool,
    max_bytes: u64,
}

impl Remote {
    pub(crate) fn deletes_atomically(&self) -> bool {
        self.deletes_atomically
    }

    /// Only for S3: other stores have one form of etags.
    pub(crate) fn etags(&self) -> Option<&Etags> {
        (self.protocol == Protocol::S3).then_some(&self.etags)
    }

    /// Makes the next request use other credentials than one that was begun at `started`. False when they do not come
    /// from a service.
    pub(crate) fn fetch_credentials(&self, started: Instant) -> bool {
        self.refresh.as_ref().is_some_and(|refresh| refresh.refresh(started))
    }

    pub(crate) async fn get(&self, key: &str, consistent: bool) -> Result<Object, Error> {
        let path = path(key)?;
        let (result, seen) = self
            .exchange(Request::Get, consistent)
            .run(async {
                let answer = self.store.get_opts(&path, GetOptions::default()).await?;
                let meta = answer.meta.clone();
                if meta.size > self.max_bytes {
                    return Ok((meta, None));
                }
                Ok((meta, Some(answer.bytes().await?)))
            })
            .await;
        match result.map_err(|error| self.error(Request::Get, &error, seen))? {
            (meta, Some(body)) => Ok(Object { body, etag: self.etag(meta.e_tag, meta.version)? }),
            (meta, None) => Err(Error::TooLarge { bytes: meta.size, limit: self.max_bytes }),
        }
    }

    pub(crate) async fn put(&self, key: &str, body: Bytes, condition: &Condition) -> Result<String, Error> {
        let path = path(key)?;
        let (request, mode) = match condition {
            Condition::Always => (Request::Put, PutMode::Overwrite),
            Condition::Absent => (Request::Create, PutMode::Create),
            Condition::Etag(etag) => (Request::Update, PutMode::Update(self.version(&path, etag).await?)),
        };
        let options = PutOptions { mode, ..PutOptions::default() };
        let (result, seen) = self
            .exchange(request, *condition != Condition::Always)
            .run(self.store.put_opts(&path, PutPayload::from(body), options))
            .await;
        match result {
            Ok(written) => self.etag(written.e_tag, written.version),
            Err(error) => Err(self.error(request, &error, seen)),
        }
    }

    /// Most deletions look at the object first: S3 does not report that there is none, and an attempt whose response was
    /// lost must not be followed by one that deletes a later version.
    pub(crate) async fn delete(&self, key: &str, target: Target<'_>) -> Result<(), Error> {
        let path = path(key)?;
        let mut etag = match target {
            Target::Version(etag) | Target::Unseen(etag) => Some(etag),
            Target::Found(_) => None,
        };
        let looks = match target {
            Target::Version(_) => self.protocol != Protocol::Google,
            // On Azure the look says where to send the deletion.
            Target::Unseen(_) => self.protocol == Protocol::Azure,
            Target::Found(_) => true,
        };
        let mut uri = None;
        if looks {
            let (found, seen) = self.look(&path).await?;
            uri = seen.uri;
            match target {
                Target::Version(etag) if found.e_tag.as_deref() != Some(etag) => return Err(Error::Conflict),
                Target::Found(first) => {
                    let there = self.etag(found.e_tag, found.version)?;
                    let first = first.get_or_init(|| there.clone());
                    if *first != there {
                        return Ok(());
                    }
                    etag = self.deletes_atomically.then_some(first);
                }
                _ => {}
            }
        }
        let request = if etag.is_some() { Request::DeleteIf } else { Request::Delete };
        let mut exchange = self.exchange(request, true);
        exchange.delete_if = match etag {
            // Azure's is part of what is signed.
            Some(_etag) if self.protocol == Protocol::Azure => None,
            Some(etag) => Some(self.condition(&path, etag).await?),
            None => None,
        };
        let (result, seen) = match &self.azure {
            Some(azure) => {
                let uri = uri.ok_or(Error::Protocol { reason: "it does not say where the object is" })?;
                exchange.run(azure.delete(uri, etag)).await
            }
            None => exchange.run(self.store.delete(&path)).await,
        };
        match (result.map_err(|error| self.error(request, &error, seen)), target) {
            // Another version, which the next attempt sees.
            (Err(Error::Conflict), Target::Found(_)) => Err(Error::Contended),
            (deleted, _) => deleted,
        }
    }

    pub(crate) async fn list(&self, prefix: &str, after: Option<String>, max: usize) -> Result<Page, Error> {
        let options =
            PaginatedListOptions { max_keys: Some(max), page_token: after, ..PaginatedListOptions::default() };
        let first_page = options.page_token.is_none();
        let prefix = (!prefix.is_empty()).then_some(prefix);
        let (result, seen) = self.exchange(Request::List, true).run(self.pages.list_paginated(prefix, options)).await;
        let answer = result.map_err(|error| self.error(Request::List, &error, seen))?;
        let mut objects = Vec::with_capacity(answer.result.objects.len());
        if let (Protocol::Azure, true, Some(prefix)) = (self.protocol, first_page, prefix) {
            objects.extend(self.namesake(prefix).await?);
        }
        for meta in answer.result.objects {
            let etag = self.listed_etag(meta.e_tag)?;
            objects.push(ObjectRef { key: meta.location.into(), etag });
        }
        Ok(Page { objects, next: answer.page_token })
    }

    /// On Azure `object_store` treats an object whose name is exactly the prefix as a directory, and omits it.
    async fn namesake(&self, prefix: &str) -> Result<Option<ObjectRef>, Error> {
        if prefix.ends_with('/') {
            return Ok(None);
        }
        match self.head(&path(prefix)?).await {
            Ok(found) => Ok(Some(ObjectRef { key: prefix.to_owned(), etag: self.etag(found.e_tag, found.version)? })),
            Err(Error::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn head(&self, path: &Path) -> Result<ObjectMeta, Error> {
        self.look(path).await.map(|(found, _seen)| found)
    }

    /// The object's version, and the URL where it was found.
    async fn look(&self, path: &Path) -> Result<(ObjectMeta, Seen), Error> {
        let (result, seen) = self.exchange(Request::Head, true).run(self.store.head(path)).await;
        let silent = seen.code.is_empty() && seen.status.is_some_and(|status| (400..500).contains(&status));
        match result {
            Ok(found) => Ok((found, seen)),
            // A response to HEAD has no body that says what is missing. A response to GET has.
            Err(_unexplained) if silent => {
                let (result, seen) =
                    self.exchange(Request::Get, true).run(self.store.get_opts(path, GetOptions::default())).await;
                match result {
                    Ok(found) => Ok((found.meta, seen)),
                    Err(error) => Err(self.error(Request::Get, &error, seen)),
                }
            }
            Err(error) => Err(self.error(Request::Head, &error, seen)),
        }
    }

    fn exchange(&self, request: Request, consistent: bool) -> Exchange {
        Exchange { request, consistent: consistent && self.custom_endpoint, ..Exchange::default() }
    }

    /// The version in the response to a read or a write.
    fn etag(&self, etag: Option<String>, generation: Option<String>) -> Result<String, Error> {
        let named = if self.protocol == Protocol::Google { generation } else { etag };
        named.map(|etag| self.etags.read(etag)).ok_or(Error::Protocol { reason: "it names no version of the object" })
    }

    fn listed_etag(&self, etag: Option<String>) -> Result<String, Error> {
        let etag = etag.ok_or(Error::Protocol { reason: "a listing without etags" })?;
        match self.protocol {
            Protocol::Azure if !etag.starts_with(['"', 'W']) => Ok(format!("\"{etag}\"")),
            Protocol::S3 => Ok(self.etags.listed(etag)),
            _ => Ok(etag),
        }
    }

    async fn version(&self, path: &Path, etag: &str) -> Result<UpdateVersion, Error> {
        match self.protocol {
            Protocol::Google => Ok(UpdateVersion { e_tag: None, version: Some(self.generation(path, etag).await?) }),
            _ => {
                let etag = self.etags.sent(etag).into_owned();
                header(&etag)?;
                Ok(UpdateVersion { e_tag: Some(etag), version: None })
            }
        }
    }

    async fn condition(&self, path: &Path, etag: &str) -> Result<(HeaderName, HeaderValue), Error> {
        let (name, value) = match self.protocol {
            Protocol::Google => (IF_GENERATION_MATCH, self.generation(path, etag).await?),
            _ => (IF_MATCH, self.etags.sent(etag).into_owned()),
        };
        Ok((name, header(&value)?))
    }

    /// Google's listings have a hash of the content, not the generation. Returns the current generation, if its
    /// content still has that hash.
    async fn generation(&self, path: &Path, etag: &str) -> Result<String, Error> {
        if etag.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(etag.to_owned());
        }
        let found =
            self.head(path).await.map_err(|error| if error == Error::NotFound { Error::Conflict } else { error })?;
        match (found.e_tag, found.version) {
            (Some(current), Some(generation)) if current == etag => Ok(generation),
            _changed => Err(Error::Conflict),
        }
    }
}

/// A value that is not a valid header cannot be an etag from a response, so no object has it.
fn header(etag: &str) -> Result<HeaderValue, Error> {
    HeaderValue::from_str(etag).map_err(|_not_a_header| Error::Conflict)
}

/// Keys are checked before; this is `object_store`'s own type for the same rules.
fn path(key: &str) -> Result<Path, Error> {
    Path::parse(key).map_err(|_invalid| Error::InvalidKey { reason: "it is not a path" })
}
