//! The least of an S3 server: objects in memory, conditional PUTs and GETs, nothing else and nothing checked. For measuring
//! clients: a server that costs more than they do would be all there is to see.

mod server;

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::{Mutex, PoisonError};

use server::{Request, serve, write};

type Objects = HashMap<String, (String, Vec<u8>)>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let objects = Mutex::new(Objects::new());
    serve(move |request, out| answer(request, &mut objects.lock().unwrap_or_else(PoisonError::into_inner), out)).await
}

fn answer(request: Request, objects: &mut Objects, out: &mut Vec<u8>) {
    let current = objects.get(&request.target);
    let etag = current.map_or("", |(etag, _body)| etag);
    if request.method == "PUT" {
        let expected = match (request.header("if-match"), request.header("if-none-match")) {
            (Some(etag), _) => Some(etag),
            (None, Some(_any)) => Some(""),
            (None, None) => None,
        };
        if expected.is_some_and(|expected| expected != etag) {
            return write(out, "412 Precondition Failed", &[], 0, b"");
        }
        let mut hasher = DefaultHasher::new();
        (etag, &request.body).hash(&mut hasher);
        let etag = format!("\"{:016x}\"", hasher.finish());
        write(out, "200 OK", &[("etag", &etag)], 0, b"");
        objects.insert(request.target, (etag, request.body));
    } else if let Some((etag, body)) = current {
        let headers = [("etag", etag.as_str()), ("last-modified", "Thu, 01 Jan 2026 00:00:00 GMT")];
        write(out, "200 OK", &headers, body.len(), body);
    } else {
        write(out, "404 Not Found", &[], 0, b"");
    }
}
