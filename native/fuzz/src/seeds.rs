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

    put("message", messages.clone())?;
    put("etf_check", [messages, terms].concat())?;
    put("json", texts)?;
    put("envelope", [objects, metas].concat())
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
