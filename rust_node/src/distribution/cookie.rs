//! The cookie, the secret that the nodes of a cluster share.
//!
//! Guarantee: the cookie is never printed. It comes from a file that only its owner can read, from a
//! credential that systemd hands this service, or from the environment. There is no flag for it, because every
//! user of the machine can read command lines.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

/// The longest cookie that the BEAM accepts: the longest atom.
const LONGEST: usize = 255;

#[derive(Clone, PartialEq, Eq)]
pub struct Cookie(Arc<str>);

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CookieError {
    #[error("cookie file {path}: {source}")]
    Io { path: String, source: std::io::Error },
    #[error(
        "cookie file {path}: mode {mode:04o}, takes 0600 or 0400 (chmod 600 {path}), and 0440 for a credential of systemd"
    )]
    Mode { path: String, mode: u32 },
    #[error("the cookie is empty, longer than 255 characters or not plain text")]
    Content,
}

impl Cookie {
    /// A cookie with that text.
    pub fn new(text: &str) -> Result<Self, CookieError> {
        let text = text.trim();
        if text.is_empty() || text.len() > LONGEST || text.chars().any(char::is_control) {
            return Err(CookieError::Content);
        }
        Ok(Cookie(text.into()))
    }

    /// Reads the cookie from a file in the format of Erlang's `.erlang.cookie`. `credentials` is the directory of
    /// the service's credentials, where systemd may give access by an access control list. The mode then has the
    /// mask of the list in place of the group's permissions, so a file there may be readable by its group.
    pub fn from_file(path: &Path, credentials: Option<&Path>) -> Result<Self, CookieError> {
        let io = |source| CookieError::Io { path: path.display().to_string(), source };
        let file = File::open(path).map_err(io)?;
        // The permissions are those of the opened file: it cannot be replaced between check and read.
        let mode = file.metadata().map_err(io)?.permissions().mode() & 0o777;
        let is_credential = credentials.is_some_and(|directory| is_in(path, directory));
        let refused = if is_credential { 0o037 } else { 0o077 };
        if mode & refused != 0 {
            return Err(CookieError::Mode { path: path.display().to_string(), mode });
        }
        let mut text = String::new();
        file.take(4_096).read_to_string(&mut text).map_err(io)?;
        Cookie::new(&text)
    }

    /// The answer to a challenge.
    pub(crate) fn digest(&self, challenge: u32) -> [u8; 16] {
        md5::compute(format!("{}{challenge}", self.0)).0
    }
}

/// Whether the file is directly in that directory.
fn is_in(path: &Path, directory: &Path) -> bool {
    let (path, directory) = (path.canonicalize(), directory.canonicalize());
    matches!((path, directory), (Ok(path), Ok(directory)) if path.parent() == Some(directory.as_path()))
}

impl fmt::Debug for Cookie {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Cookie(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(mode: u32, text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("cookie");
        std::fs::write(&path, text).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("set");
        (directory, path)
    }

    #[test]
    fn a_cookie_file_that_others_can_read_is_refused() {
        for mode in [0o644, 0o640, 0o604, 0o660] {
            let (_keep, path) = file(mode, "secret\n");
            assert!(matches!(Cookie::from_file(&path, None), Err(CookieError::Mode { mode: got, .. }) if got == mode));
        }
        let (_keep, path) = file(0o600, "secret\n");
        assert_eq!(Cookie::from_file(&path, None).expect("read"), Cookie::new("secret").expect("a cookie"));
    }

    /// `setfacl -m u:nobody:r` gives a file of mode 0400 this mode.
    #[test]
    fn a_credential_of_systemd_may_have_a_mask_that_lets_its_reader_read() {
        let (directory, path) = file(0o440, "secret");
        assert_eq!(Cookie::from_file(&path, Some(directory.path())).ok(), Cookie::new("secret").ok());
        let (elsewhere, inner) = (tempfile::tempdir().expect("a directory"), directory.path().join("inner"));
        std::fs::create_dir(&inner).expect("created");
        let link = elsewhere.path().join("cookie");
        std::os::unix::fs::symlink(&path, &link).expect("linked");
        for (path, credentials) in [(&path, elsewhere.path()), (&link, elsewhere.path()), (&path, &inner)] {
            assert!(matches!(Cookie::from_file(path, Some(credentials)), Err(CookieError::Mode { .. })), "{path:?}");
        }
        for mode in [0o460, 0o450, 0o444] {
            let (directory, path) = file(mode, "secret");
            assert!(matches!(Cookie::from_file(&path, Some(directory.path())), Err(CookieError::Mode { .. })));
        }
    }

    #[test]
    fn a_cookie_is_not_printed() {
        assert!(!format!("{:?}", Cookie::new("secret").expect("a cookie")).contains("secret"));
    }

    #[test]
    fn an_empty_cookie_is_refused() {
        assert!(Cookie::new(" \n").is_err());
    }
}
