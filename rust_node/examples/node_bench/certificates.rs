//! A certificate authority, one certificate that it issues for `localhost` and `::1`, and the BEAM options
//! that use both. The tests of the node use them, too.

use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};

/// Writes the files, and the options of a BEAM that sees the directory at `seen`. Returns its flags.
pub fn write(directory: &Path, seen: &Path) -> anyhow::Result<String> {
    let mut ca = CertificateParams::new(vec![])?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    ca.distinguished_name.push(DnType::CommonName, "test authority");
    let ca_key = KeyPair::generate()?;
    let authority = ca.self_signed(&ca_key)?;
    let issuer = Issuer::new(ca, ca_key);
    let mut own = CertificateParams::new(vec!["localhost".to_owned(), "::1".to_owned()])?;
    // A BEAM that dials compares the text of the address with names, never with addresses.
    own.subject_alt_names.push(SanType::DnsName("::1".try_into()?));
    own.distinguished_name.push(DnType::CommonName, "localhost");
    own.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    own.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate()?;
    let seen = seen.display();
    let options = format!(
        "{{cacertfile,\"{seen}/ca.pem\"}},{{certfile,\"{seen}/cert.pem\"}},{{keyfile,\"{seen}/key.pem\"}},{{verify,verify_peer}}"
    );
    std::fs::write(directory.join("ca.pem"), authority.pem())?;
    std::fs::write(directory.join("cert.pem"), own.signed_by(&key, &issuer)?.pem())?;
    std::fs::write(directory.join("key.pem"), key.serialize_pem())?;
    let options = format!("[{{server,[{options},{{fail_if_no_peer_cert,true}}]}},{{client,[{options}]}}].\n");
    std::fs::write(directory.join("ssl.conf"), options)?;
    Ok(format!("-ssl_dist_optfile {seen}/ssl.conf"))
}
