//! A certificate authority, one certificate that it issues for `localhost`, and the BEAM options that use
//! both.

use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rust_node::distribution::tls::{Tls, TlsFiles};

/// Writes the files. Returns the TLS settings for this side and the flags for the BEAM.
pub fn make(directory: &Path) -> anyhow::Result<(Tls, String)> {
    let mut ca = CertificateParams::new(vec![])?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    ca.distinguished_name.push(DnType::CommonName, "bench authority");
    let ca_key = KeyPair::generate()?;
    let authority = ca.self_signed(&ca_key)?;
    let issuer = Issuer::new(ca, ca_key);
    let mut own = CertificateParams::new(vec!["localhost".to_owned()])?;
    own.distinguished_name.push(DnType::CommonName, "localhost");
    own.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    own.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate()?;
    let certificate = own.signed_by(&key, &issuer)?;
    let at = |name: &str| directory.join(name);
    std::fs::write(at("ca.pem"), authority.pem())?;
    std::fs::write(at("cert.pem"), certificate.pem())?;
    std::fs::write(at("key.pem"), key.serialize_pem())?;
    let tls = Tls::load(&TlsFiles { ca: at("ca.pem"), certificate: at("cert.pem"), key: at("key.pem") })?;
    let path = directory.display();
    let options = format!(
        "{{cacertfile,\"{path}/ca.pem\"}},{{certfile,\"{path}/cert.pem\"}},{{keyfile,\"{path}/key.pem\"}},{{verify,verify_peer}}"
    );
    let file = format!("[{{server,[{options},{{fail_if_no_peer_cert,true}}]}},{{client,[{options}]}}].\n");
    std::fs::write(at("ssl.conf"), file)?;
    Ok((tls, format!("-proto_dist inet_tls -ssl_dist_optfile {path}/ssl.conf")))
}
