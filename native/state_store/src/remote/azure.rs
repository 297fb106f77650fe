//! Deletions on Azure. For Azure `object_store` only deletes in batches, which do not support conditions.

use std::sync::Arc;

use http::header::{HeaderValue, IF_MATCH};
use http::{Request, Uri};
use object_store::azure::{AzureAuthorizer, MicrosoftAzure};
use object_store::client::{HttpClient, HttpRequestBody};

/// A client that deletes one object, signed the way the store's own requests are.
pub(super) struct Deletions {
    pub(super) store: Arc<MicrosoftAzure>,
    pub(super) account: String,
    /// Whether requests are signed. Containers with public access need no signature.
    pub(super) signed: bool,
    pub(super) http: HttpClient,
}

impl Deletions {
    /// `uri` is where the object was found a moment ago; a signature in its query is replaced.
    pub(super) async fn delete(&self, uri: Uri, etag: Option<&str>) -> object_store::Result<()> {
        let mut request =
            Request::delete(without_query(uri)?).body(HttpRequestBody::empty()).map_err(|_| unusable())?;
        if let Some(etag) = etag {
            let etag = HeaderValue::from_str(etag).map_err(|_not_a_header| unusable())?;
            request.headers_mut().insert(IF_MATCH, etag);
        }
        if self.signed {
            let credential = self.store.credentials().get_credential().await?;
            AzureAuthorizer::new(&credential, &self.account).try_authorize(&mut request)?;
        }
        match self.http.execute(request).await {
            Ok(answer) if answer.status().is_success() => Ok(()),
            // The exact cause is in what was seen on the wire.
            _refused => Err(unusable()),
        }
    }
}

fn without_query(uri: Uri) -> object_store::Result<Uri> {
    let mut parts = uri.into_parts();
    if let Some(path_and_query) = parts.path_and_query {
        parts.path_and_query = Some(path_and_query.path().parse().map_err(|_| unusable())?);
    }
    Uri::from_parts(parts).map_err(|_| unusable())
}

fn unusable() -> object_store::Error {
    object_store::Error::Generic { store: "Azure", source: "the deletion was refused".into() }
}
