//! Values that are built from events and written again. The tests of this crate compare them.

use state_codec::{Declined, Event, Output, Parser, ReadError, Sink, Text, number, text};

/// A JSON value with its keys in the order of the text.
#[derive(Debug, Clone)]
pub enum Value {
    Null,
    Bool(bool),
    Integer(i64),
    Big(String),
    Float(f64),
    String(String),
    Array(Vec<Value>),
    Object(Vec<(String, Value)>),
}

impl PartialEq for Value {
    /// Floats by their bits, objects by their first value of each key.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Value::Null, Value::Null) => true,
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::Integer(a), Value::Integer(b)) => a == b,
            (Value::Big(a), Value::Big(b)) | (Value::String(a), Value::String(b)) => a == b,
            (Value::Float(a), Value::Float(b)) => a.to_bits() == b.to_bits(),
            (Value::Array(a), Value::Array(b)) => a == b,
            (Value::Object(a), Value::Object(b)) => first_of_each(a) == first_of_each(b),
            _ => false,
        }
    }
}

fn first_of_each(pairs: &[(String, Value)]) -> Vec<&(String, Value)> {
    let mut pairs: Vec<_> = pairs.iter().collect();
    // Stable: of equal keys the first one stays in front.
    pairs.sort_by(|a, b| a.0.cmp(&b.0));
    pairs.dedup_by(|later, first| later.0 == first.0);
    pairs
}

fn string(text: Text<'_>) -> String {
    String::from_utf8(text.as_bytes().to_owned()).expect("texts are UTF-8")
}

/// The value under construction: one frame for each open container, with its pending key.
#[derive(Default)]
struct Builder {
    open: Vec<(Value, Option<String>)>,
    whole: Option<Value>,
}

impl Sink for Builder {
    fn take(&mut self, event: Event<'_>) -> Result<(), Declined> {
        let value = match event {
            Event::Key(key) => {
                self.open.last_mut().expect("a key is inside an object").1 = Some(string(key));
                return Ok(());
            }
            Event::ArrayStart => {
                self.open.push((Value::Array(Vec::new()), None));
                return Ok(());
            }
            Event::ObjectStart => {
                self.open.push((Value::Object(Vec::new()), None));
                return Ok(());
            }
            Event::ArrayEnd | Event::ObjectEnd => self.open.pop().expect("an array or object was open").0,
            Event::Null => Value::Null,
            Event::Bool(value) => Value::Bool(value),
            Event::Integer(value) => Value::Integer(value),
            Event::BigInteger(digits) => Value::Big(digits.to_owned()),
            Event::Float(value) => Value::Float(value),
            Event::String(text) => Value::String(string(text)),
        };
        match self.open.last_mut() {
            None => self.whole = Some(value),
            Some((Value::Array(elements), _)) => elements.push(value),
            Some((Value::Object(pairs), key)) => pairs.push((key.take().expect("a key before its value"), value)),
            Some(_) => panic!("a container that is none"),
        }
        Ok(())
    }
}

/// The value of a text.
pub fn parse(text: &str) -> Result<Value, ReadError> {
    let mut builder = Builder::default();
    Parser::new(text).read(&mut builder)?;
    Ok(builder.whole.expect("a text that is read has a value"))
}

/// The text of a value.
pub fn write(value: &Value) -> String {
    let mut output = Output::new(Vec::new(), usize::MAX);
    put(&mut output, value);
    String::from_utf8(output.written().to_vec()).expect("JSON is UTF-8")
}

fn put(output: &mut Output<Vec<u8>>, value: &Value) {
    let raw = |output: &mut Output<Vec<u8>>, bytes: &[u8]| {
        output.reserve(bytes.len()).expect("room");
        output.put(bytes);
    };
    match value {
        Value::Null => raw(output, b"null"),
        Value::Bool(true) => raw(output, b"true"),
        Value::Bool(false) => raw(output, b"false"),
        Value::Integer(integer) => number::put_integer(output, *integer).expect("room"),
        Value::Big(digits) => raw(output, digits.as_bytes()),
        Value::Float(float) => number::put_float(output, *float).expect("room"),
        Value::String(string) => text::put_string(output, string.as_bytes()).expect("room"),
        Value::Array(elements) => {
            raw(output, b"[");
            for (at, element) in elements.iter().enumerate() {
                if at > 0 {
                    raw(output, b",");
                }
                put(output, element);
            }
            raw(output, b"]");
        }
        Value::Object(pairs) => {
            for (at, (key, value)) in pairs.iter().enumerate() {
                let lead = if at == 0 { b'{' } else { b',' };
                text::put_key(output, lead, key.as_bytes()).expect("room");
                put(output, value);
            }
            raw(output, if pairs.is_empty() { b"{}" } else { b"}" });
        }
    }
}
