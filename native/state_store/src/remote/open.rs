//! From a bucket and the options to a client. The environment is read first; options win. For S3, what neither
//! has comes from a profile.

use std::str::FromStr;
use std::sync::Arc;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, AwsCredentialProvider};
use object_store::azure::{AzureConfigKey, AzureCredentialProvider, MicrosoftAzureBuilder};
use object_store::client::HttpClient;
use object_store::gcp::{GcpCredentialProvider, GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::list::PaginatedListStore;
use object_store::{BackoffConfig, ClientConfigKey, ObjectStore, RetryConfig};

use super::Remote;
use super::azure::Deletions;
use super::credentials::{Credentials, Provider, Refresh};
use super::etags::Etags;
use super::profile::Profile;
use super::wire::Connector;
use crate::answers::Protocol;
use crate::{Error, Settings};

/// The account that all emulators accept.
const EMULATOR_ACCOUNT: &str = "devstoreaccount1";

pub(crate) fn s3(bucket: &str, settings: &Settings) -> Result<Remote, Error> {
    let mut builder = AmazonS3Builder::new().with_bucket_name(bucket);
    for (key, value) in s3_config(variables(), settings)? {
        builder = builder.with_config(key, value);
    }
    builder = with_profile(builder, &Profile::of_environment(|name| std::env::var(name).ok())?)?;
    check_keys(&builder)?;
    check_sts(&builder)?;
    let endpoint = [AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint]
        .iter()
        .find_map(|key| builder.get_config_value(key));
    if is_plain(endpoint.as_deref()) {
        builder = builder.with_config(AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp), "true");
    }
    builder = builder.with_disable_bulk_delete(true).with_retry(no_retries());
    let opened = open(
        settings,
        move |connector, credentials: Option<AwsCredentialProvider>| {
            let builder = builder.clone().with_http_connector(connector);
            credentials.into_iter().fold(builder, AmazonS3Builder::with_credentials).build()
        },
        |store| Arc::clone(store.credentials()),
    )?;
    let custom_endpoint = endpoint.is_some();
    let is_aws = endpoint.as_deref().is_none_or(is_aws);
    let remote = remote(Protocol::S3, bucket, opened, settings);
    Ok(Remote { custom_endpoint, deletes_atomically: is_aws, ..remote })
}

fn variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// The options, after the variables that they leave. An option also replaces variables of another name: the builder
/// prefers `AWS_ENDPOINT_URL_S3` to every other endpoint, and a token belongs to the keys beside it.
fn s3_config(
    variables: impl Iterator<Item = (String, String)>,
    settings: &Settings,
) -> Result<Vec<(AmazonS3ConfigKey, String)>, Error> {
    use AmazonS3ConfigKey as Key;
    let options = options::<Key>(settings)?;
    let given = |key: Key| options.iter().any(|(other, _)| *other == key);
    let replaced = |key: Key| match key {
        // The URL has it.
        Key::Bucket => true,
        Key::Endpoint | Key::S3Endpoint => given(Key::Endpoint) || given(Key::S3Endpoint),
        Key::Region | Key::DefaultRegion => given(Key::Region) || given(Key::DefaultRegion),
        Key::Token => given(Key::AccessKeyId) && given(Key::SecretAccessKey),
        _ => false,
    };
    let mut config: Vec<(Key, String)> = variables
        .filter(|(name, _)| name.starts_with("AWS_"))
        .filter_map(|(name, value)| Some((name.to_ascii_lowercase().parse().ok()?, value)))
        .filter(|(key, _)| !replaced(*key))
        .collect();
    config.extend(options);
    Ok(config)
}

/// Adds the settings that the builder does not have yet from the profile.
fn with_profile(mut builder: AmazonS3Builder, profile: &Profile) -> Result<AmazonS3Builder, Error> {
    use AmazonS3ConfigKey as Key;
    let has = |builder: &AmazonS3Builder, keys: &[Key]| keys.iter().any(|key| builder.get_config_value(key).is_some());
    let is_anonymous = builder.get_config_value(&Key::SkipSignature).is_some_and(|value| value == "true");
    if !is_anonymous && !has(&builder, &[Key::AccessKeyId, Key::SecretAccessKey, Key::WebIdentityTokenFile]) {
        for (option, value) in profile.credentials()? {
            builder = builder.with_config(Key::from_str(option).map_err(|_| unknown(&[option]))?, value);
        }
    }
    if let (false, Some(region)) = (has(&builder, &[Key::Region, Key::DefaultRegion]), profile.get("region")) {
        builder = builder.with_config(Key::Region, region);
    }
    if let (false, Some(endpoint)) = (has(&builder, &[Key::S3Endpoint, Key::Endpoint]), profile.get("endpoint_url")) {
        builder = builder.with_config(Key::Endpoint, endpoint);
    }
    Ok(builder)
}

/// Such as a line break at the end of a file that a variable was set from. The client panics at one in a header.
fn check_keys(builder: &AmazonS3Builder) -> Result<(), Error> {
    use AmazonS3ConfigKey as Key;
    let keys = [
        ("access_key_id", Key::AccessKeyId),
        ("secret_access_key", Key::SecretAccessKey),
        ("session_token", Key::Token),
    ];
    let is_wrong = |key| builder.get_config_value(key).is_some_and(|value| value.contains(char::is_control));
    match keys.iter().find(|(_, key)| is_wrong(key)) {
        Some((name, _)) => {
            Err(Error::Invalid { problem: format!("{name} has a line break or another control character") })
        }
        None => Ok(()),
    }
}

/// The token of a web identity is sent to STS over TLS only. The exchange would fail with an error that names neither.
fn check_sts(builder: &AmazonS3Builder) -> Result<(), Error> {
    use AmazonS3ConfigKey as Key;
    let has = |key| builder.get_config_value(&key).is_some();
    let has_keys = has(Key::AccessKeyId) || has(Key::SecretAccessKey);
    let is_exchanged = has(Key::WebIdentityTokenFile) && has(Key::RoleArn) && !has_keys;
    match builder.get_config_value(&Key::StsEndpoint).filter(|sts| is_exchanged && !sts.starts_with("https://")) {
        Some(sts) => Err(Error::Invalid {
            problem: format!(
                "AWS_ENDPOINT_URL_STS is {sts}: takes https://, because the token of the web identity is sent there"
            ),
        }),
        None => Ok(()),
    }
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
    if emulator || is_plain(endpoint.as_deref()) {
        builder = builder.with_config(AzureConfigKey::Client(ClientConfigKey::AllowHttp), "true");
    }
    builder = builder.with_retry(no_retries());
    let opened = open(
        settings,
        move |connector, credentials: Option<AzureCredentialProvider>| {
            let builder = builder.clone().with_http_connector(connector);
            credentials.into_iter().fold(builder, MicrosoftAzureBuilder::with_credentials).build()
        },
        |store| Arc::clone(store.credentials()),
    )?;
    let (store, http) = (Arc::clone(&opened.store), opened.http.clone());
    let azure = Some(Deletions { store, account, signed, http });
    Ok(Remote { azure, ..remote(Protocol::Azure, container, opened, settings) })
}

pub(crate) fn google(bucket: &str, settings: &Settings) -> Result<Remote, Error> {
    let mut builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(bucket);
    for (key, value) in options::<GoogleConfigKey>(settings)? {
        builder = builder.with_config(key, value);
    }
    if is_plain(builder.get_config_value(&GoogleConfigKey::BaseUrl).as_deref()) {
        builder = builder.with_config(GoogleConfigKey::Client(ClientConfigKey::AllowHttp), "true");
    }
    builder = builder.with_retry(no_retries());
    let opened = open(
        settings,
        move |connector, credentials: Option<GcpCredentialProvider>| {
            let builder = builder.clone().with_http_connector(connector);
            credentials.into_iter().fold(builder, GoogleCloudStorageBuilder::with_credentials).build()
        },
        |store| Arc::clone(store.credentials()),
    )?;
    Ok(remote(Protocol::Google, bucket, opened, settings))
}

/// A store, the HTTP client of its requests and, if its credentials come from a service, what fetches new ones.
struct Opened<S> {
    store: Arc<S>,
    http: HttpClient,
    refresh: Option<Arc<dyn Refresh>>,
}

/// Builds a store. If its credentials come from a service, builds it again with these credentials watched.
fn open<S, T: Send + Sync + 'static>(
    settings: &Settings,
    build: impl Fn(Connector, Option<Provider<T>>) -> object_store::Result<S> + Send + Sync + 'static,
    credentials: impl Fn(&S) -> Provider<T> + Send + Sync + 'static,
) -> Result<Opened<S>, Error> {
    let connector = Connector::default();
    let store = build(connector.clone(), None).map_err(|error| refused(settings, &error))?;
    let fetches = connector.count() > 1;
    let (store, refresh) = if fetches {
        let inner = credentials(&store);
        let build = Arc::new(build);
        let again = Arc::clone(&build);
        let anew = move || again(Connector::default(), None).map(|store| credentials(&store));
        let watched = Arc::new(Credentials::new(inner, anew, settings.attempt_timeout));
        let store =
            build(connector.clone(), Some(Arc::clone(&watched) as _)).map_err(|error| refused(settings, &error))?;
        (store, Some(watched as Arc<dyn Refresh>))
    } else {
        (store, None)
    };
    let http = connector.last().ok_or_else(|| Error::Invalid { problem: "no HTTP client was made".to_owned() })?;
    Ok(Opened { store: Arc::new(store), http, refresh })
}

/// Builds the part of a store that is the same for all providers.
fn remote<S>(protocol: Protocol, bucket: &str, opened: Opened<S>, settings: &Settings) -> Remote
where
    S: ObjectStore + PaginatedListStore,
{
    Remote {
        protocol,
        bucket: bucket.to_owned(),
        pages: Arc::clone(&opened.store) as _,
        store: opened.store,
        azure: None,
        refresh: opened.refresh,
        etags: Etags::default(),
        custom_endpoint: false,
        deletes_atomically: true,
        max_bytes: settings.max_object_bytes,
    }
}

/// AWS itself under another host name: an interface, dual-stack or FIPS endpoint.
fn is_aws(endpoint: &str) -> bool {
    let host = endpoint.split_once("://").map_or(endpoint, |(_scheme, rest)| rest);
    let host = host.split(['/', ':']).next().unwrap_or_default();
    [".amazonaws.com", ".amazonaws.com.cn", ".api.aws"].iter().any(|suffix| host.ends_with(suffix))
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
    if unknown.is_empty() { Ok(known) } else { Err(self::unknown(&unknown)) }
}

fn unknown(options: &[&str]) -> Error {
    Error::Invalid { problem: format!("this kind of store has no option {}", options.join(", ")) }
}

/// Plain HTTP is allowed if and only if the endpoint says `http://`.
fn is_plain(endpoint: Option<&str>) -> bool {
    endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"))
}

fn no_retries() -> RetryConfig {
    RetryConfig { max_retries: 0, backoff: BackoffConfig::default(), ..RetryConfig::default() }
}

/// The builder's message with all causes, such as missing certificate authorities. The values of options are
/// removed from it, because they may be secret.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
        of.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn options_replace_variables_that_the_builder_would_prefer_and_leave_the_others() {
        use AmazonS3ConfigKey as Key;
        let variables = pairs(&[
            ("AWS_ENDPOINT_URL_S3", "https://other.example"),
            ("AWS_SESSION_TOKEN", "of other keys"),
            ("AWS_REGION", "auto"),
            ("AWS_BUCKET", "other"),
        ]);
        let builder = |options: &[(&str, &str)]| {
            let settings = Settings { options: pairs(options), ..Settings::default() };
            let config = s3_config(variables.iter().cloned(), &settings).expect("known options");
            let builder = AmazonS3Builder::new().with_bucket_name("states");
            let builder = config.into_iter().fold(builder, |builder, (key, value)| builder.with_config(key, value));
            let keys = [Key::S3Endpoint, Key::Endpoint, Key::Token, Key::Region, Key::Bucket];
            keys.map(|key| builder.get_config_value(&key))
        };
        let value = |text: &str| Some(text.to_owned());
        assert_eq!(
            builder(&[("endpoint", "https://own.example"), ("access_key_id", "k"), ("secret_access_key", "s")]),
            [None, value("https://own.example"), None, value("auto"), value("states")]
        );
        assert_eq!(
            builder(&[("default_region", "eu")]),
            [value("https://other.example"), None, value("of other keys"), value("eu"), value("states")]
        );
    }
}
