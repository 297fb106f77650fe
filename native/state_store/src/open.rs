//! Opens the backend that a URL names.

use std::path::Path;

use crate::backend::Backend;
use crate::directory::Directory;
use crate::memory::Memory;
use crate::remote;
use crate::{Error, Settings};

const EXPECTED: &str = "expected s3://BUCKET/PATH, gs://BUCKET/PATH, az://CONTAINER/PATH, file:///DIR or memory:";

/// The backend, and the prefix of every key.
pub(crate) fn open(url: &str, settings: &Settings) -> Result<(Backend, String), Error> {
    let (scheme, rest) = url.split_once(':').ok_or_else(|| invalid(EXPECTED))?;
    match (scheme, rest.strip_prefix("//")) {
        ("memory", None) => {
            no_options(settings)?;
            Ok((Backend::Memory(Memory::open(rest)), String::new()))
        }
        ("file", Some(path)) if path.starts_with('/') => {
            no_options(settings)?;
            let path = decoded(url)?;
            let directory = Directory::open(Path::new(&path), settings.max_object_bytes, settings.read_only)?;
            Ok((Backend::Directory(directory), String::new()))
        }
        ("s3" | "gs" | "az", Some(rest)) => {
            let (bucket, path) = rest.split_once('/').unwrap_or((rest, ""));
            // A user's name before an @ or a query would be credentials in the URL.
            if bucket.is_empty() || rest.contains(['@', '?', '#']) {
                return Err(invalid(EXPECTED));
            }
            let path = path.trim_end_matches('/');
            let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
            if !path.is_empty() {
                crate::key::check(path).map_err(|_unusable| invalid("the path in the URL is not a key"))?;
            }
            let remote = match scheme {
                "s3" => remote::open::s3(bucket, settings)?,
                "gs" => remote::open::google(bucket, settings)?,
                _ => remote::open::azure(bucket, settings)?,
            };
            Ok((Backend::Remote(remote), prefix))
        }
        _ => Err(invalid(EXPECTED)),
    }
}

/// `%XX` in a file URL.
fn decoded(url: &str) -> Result<String, Error> {
    let url = url::Url::parse(url).map_err(|_unusable| invalid(EXPECTED))?;
    let path = url.to_file_path().map_err(|()| invalid(EXPECTED))?;
    path.into_os_string().into_string().map_err(|_not_unicode| invalid("the path in the URL is not UTF-8"))
}

fn no_options(settings: &Settings) -> Result<(), Error> {
    if settings.options.is_empty() { Ok(()) } else { Err(invalid("this kind of store has no options of its own")) }
}

fn invalid(problem: &str) -> Error {
    Error::Invalid { problem: problem.to_owned() }
}
