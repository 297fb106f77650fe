//! From a bucket and the options to a client. The environment is read first; options win.

use std::str::FromStr;
use std::sync::Arc;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::client::HttpConnector;
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::list::PaginatedListStore;
use object_store::{BackoffConfig, ClientConfigKey, ClientOptions, ObjectStore, RetryConfig};

use super::azure::Deletions;
use super::wire::Connector;
use super::{Provider, Remote};
use crate::{Error, Settings};

/// The account every emulator knows.
const EMULATOR_ACCOUNT: &str = "devstoreaccount1";

pub(crate) fn s3(bucket: &str, settings: &Settings) -> Result<Remote, Error> {
    let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket);
    for (key, value) in options::<AmazonS3ConfigKey>(settings)? {
        builder = builder.with_config(key, value);
    }
    let endpoint = [AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint]
        .iter()
        .find_map(|key| builder.get_config_value(key));
    if is_plain(endpoint.as_deref()) {
        builder = builder.with_config(AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp), "true");
    }
    let store = builder
        .with_disable_bulk_delete(true)
        .with_retry(no_retries())
        .with_http_connector(Connector)
        .build()
        .map_err(|error| refused(settings, &error))?;
    let remote = remote(Provider::S3, bucket, Arc::new(store), settings);
    Ok(Remote { custom_endpoint: endpoint.is_some(), ..remote })
}

pub(crate) fn azure(container: &str, settings: &Settings) -> Result<Remote, Error> {
    let mut builder = MicrosoftAzureBuilder::from_env().with_container_name(container);
    for (key, value) in options::<AzureConfigKey>(settings)? {
        builder = builder.with_config(key, value);
    }
    let endpoint = builder.get_config_value(&AzureConfigKey::Endpoint);
    let emulator = builder.get_config_value(&AzureConfigKey::UseEmulator).is_some_and(|value| value == "true");
    let account = match builder.get_config_value(&AzureConfigKey::AccountName) {
        Some(account) => account,
        None if emulator => EMULATOR_ACCOUNT.to_owned(),
        None => String::new(),
    };
    let signed = builder.get_config_value(&AzureConfigKey::SkipSignature).is_none_or(|value| value != "true");
    let plain = emulator || is_plain(endpoint.as_deref());
    if plain {
        builder = builder.with_config(AzureConfigKey::Client(ClientConfigKey::AllowHttp), "true");
    }
    let store = builder
        .with_retry(no_retries())
        .with_http_connector(Connector)
        .build()
        .map_err(|error| refused(settings, &error))?;
    let http =
        Connector.connect(&ClientOptions::new().with_allow_http(plain)).map_err(|error| refused(settings, &error))?;
    let store = Arc::new(store);
    let azure = Some(Deletions { store: Arc::clone(&store), account, signed, http });
    Ok(Remote { azure, ..remote(Provider::Azure, container, store, settings) })
}

pub(crate) fn google(bucket: &str, settings: &Settings) -> Result<Remote, Error> {
    let mut builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(bucket);
    for (key, value) in options::<GoogleConfigKey>(settings)? {
        builder = builder.with_config(key, value);
    }
    if is_plain(builder.get_config_value(&GoogleConfigKey::BaseUrl).as_deref()) {
        builder = builder.with_config(GoogleConfigKey::Client(ClientConfigKey::AllowHttp), "true");
    }
    let store = builder
        .with_retry(no_retries())
        .with_http_connector(Connector)
        .build()
        .map_err(|error| refused(settings, &error))?;
    Ok(remote(Provider::Google, bucket, Arc::new(store), settings))
}

/// What every provider has.
fn remote<S>(provider: Provider, bucket: &str, store: Arc<S>, settings: &Settings) -> Remote
where
    S: ObjectStore + PaginatedListStore,
{
    Remote {
        provider,
        bucket: bucket.to_owned(),
        pages: Arc::clone(&store) as _,
        store,
        azure: None,
        custom_endpoint: false,
        max_bytes: settings.max_object_bytes,
    }
}

/// The options by the provider's names, all unknown ones in one message.
fn options<K: FromStr>(settings: &Settings) -> Result<Vec<(K, String)>, Error> {
    let mut known = Vec::new();
    let mut unknown = Vec::new();
    for (name, value) in &settings.options {
        match K::from_str(name) {
            Ok(key) => known.push((key, value.clone())),
            Err(_unknown) => unknown.push(name.as_str()),
        }
    }
    if unknown.is_empty() {
        Ok(known)
    } else {
        Err(Error::Invalid { problem: format!("this kind of store has no option {}", unknown.join(", ")) })
    }
}

/// Whoever writes `http://` means it.
fn is_plain(endpoint: Option<&str>) -> bool {
    endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"))
}

fn no_retries() -> RetryConfig {
    RetryConfig { max_retries: 0, backoff: BackoffConfig::default(), ..RetryConfig::default() }
}

/// The builder's own words and all causes, such as certificate authorities that are not there. They name options and repeat
/// values: the values are taken out.
fn refused(settings: &Settings, error: &object_store::Error) -> Error {
    let mut problem = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        let text = inner.to_string();
        if !problem.contains(&text) {
            problem.push_str(": ");
            problem.push_str(&text);
        }
        cause = inner.source();
    }
    Error::Invalid { problem: settings.redact(&problem) }
}
