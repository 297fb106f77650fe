//! TLS for distribution, mutual: both sides show a certificate of the same authority.
//!
//! Guarantee: a peer without a certificate of that authority does not reach the distribution handshake.
//! Renewed files are used from the next connection on. If they cannot be used, the previous ones stay in use.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tracing::{info, warn};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// CA certificates, PEM. Every peer's certificate must be issued by one of them.
    pub ca: PathBuf,
    /// This node's certificate, followed by intermediate CA certificates, PEM.
    pub certificate: PathBuf,
    pub key: PathBuf,
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file is missing, unreadable, or does not contain what it should.
    #[error("{path}: {problem}")]
    File { path: String, problem: String },
    /// Each file can be read, but TLS cannot be set up from them: for example, the key is not the certificate's.
    #[error("TLS: {problem}")]
    Config { problem: String },
}

/// TLS settings for accepted and for outgoing connections; clones are the same.
#[derive(Clone)]
pub struct Tls(Arc<Mutex<Current>>);

struct Current {
    files: TlsFiles,
    /// The state of the files when they were read.
    read: Stamps,
    /// The state of the files when they last could not be used.
    unusable: Option<Stamps>,
    configs: Configs,
}

/// When each file was changed last, and its length.
type Stamps = [Option<(SystemTime, u64)>; 3];

#[derive(Clone)]
struct Configs {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Tls(..)")
    }
}

impl Tls {
    /// Reads the files.
    pub fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        let read = stamps(files);
        let configs = Configs::load(files)?;
        Ok(Tls(Arc::new(Mutex::new(Current { files: files.clone(), read, unusable: None, configs }))))
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        self.current().server.into()
    }

    pub(crate) fn connector(&self) -> TlsConnector {
        self.current().client.into()
    }

    /// The settings from the current files, or the previous ones if the files cannot be used.
    fn current(&self) -> Configs {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = stamps(&current.files);
        if now != current.read {
            match Configs::load(&current.files) {
                Ok(configs) => {
                    info!("the files of TLS were renewed, new connections use them");
                    (current.configs, current.read, current.unusable) = (configs, now, None);
                }
                // Perhaps not all of the files have been renewed yet.
                Err(error) if current.unusable != Some(now) => {
                    warn!(%error, "the files of TLS were changed and cannot be used, those before stay in use");
                    current.unusable = Some(now);
                }
                Err(_told) => {}
            }
        }
        current.configs.clone()
    }
}

fn stamps(files: &TlsFiles) -> Stamps {
    [&files.ca, &files.certificate, &files.key].map(|path| {
        let file = std::fs::metadata(path).ok()?;
        Some((file.modified().ok()?, file.len()))
    })
}

impl Configs {
    fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        let config = |problem: &dyn std::fmt::Display| TlsError::Config { problem: problem.to_string() };
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&files.ca)? {
            roots.add(certificate).map_err(|problem| config(&problem))?;
        }
        let roots = Arc::new(roots);
        let chain = certificates(&files.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|problem| file(&files.key, &problem))?;
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
            .build()
            .map_err(|problem| config(&problem))?;
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|problem| config(&problem))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(|problem| config(&problem))?;
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|problem| config(&problem))?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(|problem| config(&problem))?;
        Ok(Configs { server: Arc::new(server), client: Arc::new(client) })
    }
}

/// The host part of a peer's node name. The peer's certificate must be valid for it.
pub(crate) fn server_name(host: &str) -> std::io::Result<ServerName<'static>> {
    ServerName::try_from(host.to_owned()).map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidInput, error))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(|problem| file(path, &problem))?
        .collect::<Result<_, _>>()
        .map_err(|problem| file(path, &problem))?;
    if found.is_empty() { Err(file(path, &"no certificate in it")) } else { Ok(found) }
}

fn file(path: &Path, problem: &dyn std::fmt::Display) -> TlsError {
    TlsError::File { path: path.display().to_string(), problem: problem.to_string() }
}
