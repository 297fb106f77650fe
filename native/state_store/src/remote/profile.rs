//! A profile of AWS' shared files: settings that are used when neither options nor variables have any.
//!
//! The rules are those of the SDKs: the profile is `AWS_PROFILE` or `default`; its settings are in
//! `AWS_SHARED_CREDENTIALS_FILE` or `~/.aws/credentials`, then in `AWS_CONFIG_FILE` or `~/.aws/config`. Keys
//! and web identity are supported. A profile that needs something else (a role of another profile, SSO, a
//! program) is refused and not skipped, because the next source of credentials may be another account. Only
//! an unnamed default profile is skipped: the machine may use its role.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use crate::Error;

/// The most bytes read of each file.
const LONGEST: u64 = 1024 * 1024;
/// Settings by which a profile gets credentials in a way that is not supported here.
const UNSUPPORTED: [&str; 6] =
    ["source_profile", "credential_source", "sso_session", "sso_start_url", "credential_process", "login_session"];

type Section = BTreeMap<String, String>;

/// The settings of a profile, by their names in the files.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Profile {
    name: String,
    /// Whether `AWS_PROFILE` names the profile.
    is_named: bool,
    settings: Section,
}

impl Profile {
    /// The profile that the environment names, or the default one. It may be empty. A file that cannot be
    /// read and a named profile that is in no file are errors.
    pub(super) fn of_environment(variable: impl Fn(&str) -> Option<String>) -> Result<Profile, Error> {
        let named = variable("AWS_PROFILE").filter(|name| !name.is_empty());
        let name = named.clone().unwrap_or_else(|| "default".to_owned());
        let path = |of: &str, file: &str| {
            let home = || Some(PathBuf::from(variable("HOME")?).join(".aws").join(file));
            variable(of).map(PathBuf::from).or_else(home)
        };
        let credentials = read(path("AWS_SHARED_CREDENTIALS_FILE", "credentials"))?;
        let config = read(path("AWS_CONFIG_FILE", "config"))?;
        let of_credentials = section(&credentials, |header| header == name);
        let of_config = section(&config, |header| {
            let profile = header.strip_prefix("profile").filter(|rest| rest.starts_with(char::is_whitespace));
            profile.map(str::trim) == Some(&*name) || (name == "default" && header == "default")
        });
        if named.is_some() && of_credentials.is_none() && of_config.is_none() {
            return Err(Error::Invalid { problem: format!("AWS_PROFILE is {name}, and no file has such a profile") });
        }
        let mut settings = of_config.unwrap_or_default();
        settings.extend(of_credentials.unwrap_or_default());
        Ok(Profile { name, is_named: named.is_some(), settings })
    }

    pub(super) fn get(&self, setting: &str) -> Option<&str> {
        self.settings.get(setting).map(String::as_str)
    }

    /// The credentials of the profile, each as its option and its value; empty if the profile has none, an
    /// error if it uses an unsupported way to get them.
    pub(super) fn credentials(&self) -> Result<Vec<(&'static str, &str)>, Error> {
        let all = |names: &[(&'static str, &str)]| {
            names.iter().map(|(option, setting)| Some((*option, self.get(setting)?))).collect::<Option<Vec<_>>>()
        };
        let some = |option, setting| self.get(setting).map(|value| (option, value));
        if let Some(setting) = UNSUPPORTED.iter().find(|setting| self.get(setting).is_some()) {
            if !self.is_named {
                return Ok(Vec::new());
            }
            let name = &self.name;
            let problem = format!(
                "profile {name} gets its credentials by {setting}, which is not supported: eval \"$(aws configure export-credentials --profile {name} --format env)\" sets them"
            );
            return Err(Error::Invalid { problem });
        }
        let web = [("aws_web_identity_token_file", "web_identity_token_file"), ("aws_role_arn", "role_arn")];
        let keys = [("aws_access_key_id", "aws_access_key_id"), ("aws_secret_access_key", "aws_secret_access_key")];
        if let Some(mut found) = all(&web) {
            found.extend(some("aws_role_session_name", "role_session_name"));
            return Ok(found);
        }
        let Some(mut found) = all(&keys) else { return Ok(Vec::new()) };
        found.extend(some("aws_session_token", "aws_session_token"));
        Ok(found)
    }
}

/// A missing file counts as empty.
fn read(path: Option<PathBuf>) -> Result<String, Error> {
    let Some(path) = path else { return Ok(String::new()) };
    let mut text = String::new();
    let read = File::open(&path).and_then(|file| file.take(LONGEST).read_to_string(&mut text));
    match read {
        Ok(_) => Ok(text),
        // As in the SDKs, this includes a folder that cannot be read and a path below something that is not a
        // folder. A service's user may have such a home.
        Err(_) if !path.is_file() => Ok(String::new()),
        Err(error) => Err(Error::Invalid { problem: format!("{}: {error}", path.display()) }),
    }
}

/// The settings below the headers for which `is_it` is true; `None` without such a header. Indented lines
/// belong to nested settings, which are not used here.
fn section(text: &str, is_it: impl Fn(&str) -> bool) -> Option<Section> {
    let mut found: Option<Section> = None;
    let mut inside = false;
    for line in text.lines().filter(|line| !line.starts_with([' ', '\t', '#', ';'])) {
        if let Some(header) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            inside = is_it(header.trim());
            if inside {
                found.get_or_insert_default();
            }
        } else if let (true, Some(section), Some((name, value))) = (inside, &mut found, line.split_once('=')) {
            let value =
                [" #", " ;", "\t#", "\t;"].iter().fold(value, |value, mark| value.split(mark).next().unwrap_or(value));
            section.insert(name.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREDENTIALS: &str = "\
# of a person
[default]
aws_access_key_id = AKIADEFAULT
aws_secret_access_key=one=two/three ; of last week
[other]
aws_access_key_id = AKIAOTHER
aws_secret_access_key = four
aws_session_token = five
";
    const CONFIG: &str = "\
[default]
region = eu-central-1
s3 =
  addressing_style = path
  region = not-this
[profile other]
region = eu-north-1
endpoint_url = http://127.0.0.1:9000
aws_access_key_id = AKIASHADOWED
[profile pod]
role_arn = arn:aws:iam::1:role/audit
web_identity_token_file = /var/run/token
role_session_name = audit
[profile chained]
role_arn = arn:aws:iam::1:role/audit
source_profile = default
[profilers]
region = wrong
";

    fn profile(name: Option<&str>) -> Result<Profile, Error> {
        let directory = tempfile::tempdir().expect("a directory");
        let aws = directory.path().join(".aws");
        std::fs::create_dir(&aws).expect("made");
        std::fs::write(aws.join("credentials"), CREDENTIALS).expect("written");
        let elsewhere = directory.path().join("config");
        std::fs::write(&elsewhere, CONFIG).expect("written");
        Profile::of_environment(|variable| match variable {
            "HOME" => Some(directory.path().display().to_string()),
            "AWS_CONFIG_FILE" => Some(elsewhere.display().to_string()),
            "AWS_PROFILE" => name.map(str::to_owned),
            _ => None,
        })
    }

    #[test]
    fn keys_come_from_the_named_profile_or_the_default_one() {
        let default = profile(None).expect("there");
        let keys = [("aws_access_key_id", "AKIADEFAULT"), ("aws_secret_access_key", "one=two/three")];
        assert_eq!(
            (default.credentials().expect("keys"), default.get("region")),
            (keys.to_vec(), Some("eu-central-1"))
        );
        let other = profile(Some("other")).expect("there");
        let keys = other.credentials().expect("keys");
        assert_eq!(keys[0], ("aws_access_key_id", "AKIAOTHER"), "the credentials file wins");
        assert_eq!(keys[2], ("aws_session_token", "five"));
        assert_eq!(other.get("endpoint_url"), Some("http://127.0.0.1:9000"));
    }

    #[test]
    fn a_profile_may_have_a_web_identity() {
        let expected = [
            ("aws_web_identity_token_file", "/var/run/token"),
            ("aws_role_arn", "arn:aws:iam::1:role/audit"),
            ("aws_role_session_name", "audit"),
        ];
        assert_eq!(profile(Some("pod")).expect("there").credentials().expect("a role"), expected);
    }

    #[test]
    fn a_home_that_is_not_a_folder_has_no_profile() {
        let home = |variable: &str| (variable == "HOME").then(|| "/dev/null".to_owned());
        assert_eq!(Profile::of_environment(home).expect("no file is no error").get("region"), None);
    }

    #[test]
    fn a_missing_or_unsupported_profile_is_refused() {
        for (name, named) in [("nowhere", "nowhere"), ("chained", "source_profile")] {
            let refused = profile(Some(name)).and_then(|profile| profile.credentials().map(|found| found.len()));
            assert!(matches!(&refused, Err(Error::Invalid { problem }) if problem.contains(named)), "{refused:?}");
        }
        let settings = Section::from([("sso_session".to_owned(), "s".to_owned())]);
        let unnamed = Profile { name: "default".to_owned(), is_named: false, settings };
        assert_eq!(unnamed.credentials().expect("passed over"), []);
        let nothing = Profile::of_environment(|_| None).expect("no file is no error");
        assert_eq!(nothing.credentials().expect("none"), []);
    }
}
