//! The HTML page, and the headers of every answer.
//!
//! Guarantee: the page is one file that loads nothing from other servers. Its style and script carry a nonce
//! that is new for each answer, and the content policy allows only what carries it: text of a node that
//! became markup would not run.

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{Html, IntoResponse, Response};

const PAGE: &str = include_str!("page.html");
/// The placeholder for the nonce in the page.
const NONCE: &str = "{{nonce}}";

const HEADERS: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (header::CACHE_CONTROL, "no-store"),
];

pub(super) async fn page() -> Response {
    let nonce = format!("{:032x}", rand::random::<u128>());
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; \
         img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    );
    ([(header::CONTENT_SECURITY_POLICY, policy)], Html(PAGE.replace(NONCE, &nonce))).into_response()
}

/// Adds the headers that an answer has not set itself.
pub(super) async fn protect(mut response: Response) -> Response {
    for (name, value) in HEADERS {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_small_requests_only_its_own_server_and_inserts_no_text_as_markup() {
        assert!(PAGE.len() < 60_000, "{} bytes", PAGE.len());
        for never in [
            "http://",
            "https://",
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "style=\"",
            " onclick",
        ] {
            // The SVG namespace is a name, not an address.
            let text = PAGE.replace("http://www.w3.org/2000/svg", "");
            assert!(!text.contains(never), "{never}");
        }
    }

    #[tokio::test]
    async fn style_and_script_carry_the_nonce_of_the_policy_and_each_answer_has_a_new_one() {
        let mut numbers = Vec::new();
        for _ in 0..2 {
            let response = protect(page().await).await;
            let policy = response.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned();
            assert_eq!(response.headers()[header::X_FRAME_OPTIONS], "DENY");
            let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
            let body = String::from_utf8(body.to_vec()).unwrap();
            let (_, rest) = policy.split_once("script-src 'nonce-").unwrap();
            let number = rest[..32].to_owned();
            assert_eq!(body.matches(&format!("nonce=\"{number}\"")).count(), 2, "{policy}");
            assert!(!body.contains(NONCE) && !policy.contains("unsafe"), "{policy}");
            numbers.push(number);
        }
        assert_ne!(numbers[0], numbers[1]);
    }
}
