//! Plain HTTP on the TLS port: the answer says where to go (golden/traces 18).

use http::{HeaderValue, Method, Request, StatusCode, header};

use super::reply::{self, Response};

/// 301 for GET and HEAD, 308 for what has a body, to `https://` and the host that was asked for.
pub(super) fn to_https<B>(request: &Request<B>) -> Response {
    let status = match *request.method() {
        Method::GET | Method::HEAD => StatusCode::MOVED_PERMANENTLY,
        _ => StatusCode::PERMANENT_REDIRECT,
    };
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let location = host.and_then(|host| HeaderValue::try_from(format!("https://{host}")).ok());
    let Some(location) = location else { return reply::empty(StatusCode::BAD_REQUEST) };
    let mut response = reply::empty(status);
    response.headers_mut().insert(header::LOCATION, location);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_recorded() {
        for (method, status) in [("GET", 301), ("HEAD", 301), ("POST", 308), ("PUT", 308)] {
            let request = Request::builder().method(method).header("host", "127.0.0.1:8007").body(()).unwrap();
            let response = to_https(&request);
            assert_eq!(response.status().as_u16(), status);
            assert_eq!(response.headers()["location"], "https://127.0.0.1:8007");
        }
        assert_eq!(to_https(&Request::new(())).status().as_u16(), 400);
    }
}
