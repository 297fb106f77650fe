//! Writes the golden vectors as seeds: `seeds VECTORS OUT` makes a folder for each target in OUT.

use std::error::Error;
use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args_os().skip(1);
    let (Some(vectors), Some(out)) = (args.next(), args.next()) else {
        return Err("usage: seeds VECTORS OUT".into());
    };
    let (vectors, out) = (Path::new(&vectors), Path::new(&out));
    let read =
        |name: &str| -> Result<Value, Box<dyn Error>> { Ok(serde_json::from_slice(&fs::read(vectors.join(name))?)?) };
    let put = |target: &str, seeds: Vec<Vec<u8>>| -> Result<(), Box<dyn Error>> {
        fs::create_dir_all(out.join(target))?;
        for (number, seed) in seeds.iter().enumerate() {
            fs::write(out.join(target).join(format!("golden-{number:03}")), seed)?;
        }
        Ok(())
    };

    let wire = read("wire/otp-29.json")?;
    let messages = each(&wire["cases"], |case| hex(case["hex"].as_str()?));
    let codec = read("codec.json")?;
    let terms = each(&codec["encode"], |case| base64(&case["term_etf_base64"]));
    let mut texts = each(&codec["decode"], |case| base64(&case["text_base64"]));
    texts.extend(each(&codec["encode"], |case| base64(&case["json_base64"])));
    let stored = read("envelope.json")?;
    let objects = each(&stored["objects"], |case| base64(&case["object_base64"]));
    let metas =
        objects.iter().filter_map(|object| base64(&serde_json::from_slice::<Value>(object).ok()?["meta"])).collect();

    put("dns", answers())?;
    put("message", messages.clone())?;
    put("etf_check", [messages, terms].concat())?;
    put("json", texts)?;
    put("envelope", [objects, metas].concat())
}

/// Answers to question 7, as real servers write them: SRV records whose hosts end in the question's name, and their addresses.
fn answers() -> Vec<Vec<u8>> {
    let question = b"\x05_dist\x04_tcp\x03app\x08internal\x00\x00\x21\x00\x01";
    let service = |host: &[u8]| {
        let length = u16::try_from(host.len() + 6).expect("short").to_be_bytes();
        [b"\xc0\x0c\x00\x21\x00\x01\x00\x00\x00\x3c", &length[..], b"\x00\x00\x00\x00\x23\x91", host].concat()
    };
    let services =
        [service(b"\x05pod-1\xc0\x17"), service(b"\x05pod-2\x03app\x08internal\x00"), service(b"\x00")].concat();
    let (a, aaaa) = (
        b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\x0a\x00\x00\x07",
        b"\xc0\x0c\x00\x1c\x00\x01\x00\x00\x00\x3c\x00\x10",
    );
    let addresses = [&a[..], aaaa, &[0xfd; 16]].concat();
    let message =
        |flags: [u8; 2], counts: [u8; 6], rest: &[u8]| [&[0, 7][..], &flags, &[0, 1], &counts, question, rest].concat();
    vec![
        message([0x81, 0x80], [0, 3, 0, 0, 0, 2], &[&services[..], &addresses].concat()),
        message([0x81, 0x80], [0, 5, 0, 0, 0, 0], &[&addresses[..], &services].concat()),
        message([0x81, 0x83], [0, 0, 0, 0, 0, 0], &[]),
        message([0x83, 0x80], [0, 0, 0, 0, 0, 0], &[]),
        [&[0x81, 0x80, 0, 3, 0, 0, 0, 0][..], &services].concat(),
    ]
}

fn each(cases: &Value, seed: impl Fn(&Value) -> Option<Vec<u8>>) -> Vec<Vec<u8>> {
    cases.as_array().into_iter().flatten().filter_map(seed).collect()
}

fn base64(text: &Value) -> Option<Vec<u8>> {
    STANDARD.decode(text.as_str()?).ok()
}

fn hex(text: &str) -> Option<Vec<u8>> {
    text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}
