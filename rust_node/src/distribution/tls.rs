//! TLS for distribution, mutual: both sides show a certificate of the same authority.
//!
//! Guarantee: without a certificate of that authority a peer does not even get to the handshake.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Where the certificates are, all PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// CA certificates, PEM. Every peer's certificate must be issued by one of them.
    pub ca: PathBuf,
    /// This node's certificate, followed by intermediate CA certificates, PEM.
    pub certificate: PathBuf,
    /// The private key of `certificate`, PEM.
    pub key: PathBuf,
}

/// Why TLS cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file is missing, unreadable, or does not contain what it should.
    #[error("{path}: {problem}")]
    File {
        path: String,
        /// What is wrong.
        problem: String,
    },
    /// Each file can be read, but TLS cannot be set up from them: for example, the key is not the certificate's.
    #[error("TLS: {problem}")]
    Config {
        /// What is wrong.
        problem: String,
    },
}

/// TLS settings for accepted and for outgoing connections.
#[derive(Clone)]
pub struct Tls {
    pub(crate) acceptor: TlsAcceptor,
    pub(crate) connector: TlsConnector,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Tls(..)")
    }
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn load(files: &TlsFiles) -> Result<Self, TlsError> {
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
        Ok(Tls { acceptor: Arc::new(server).into(), connector: Arc::new(client).into() })
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
