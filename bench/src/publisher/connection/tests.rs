use super::*;

#[track_caller]
fn check(bytes: &str, status: u16, body: &str, left: &str) {
    let (response, length) = Response::parse(bytes.as_bytes()).expect("valid").expect("complete");
    assert_eq!((response.status, response.body.as_str()), (status, body));
    assert_eq!(&bytes[length..], left);
}

#[test]
fn a_response_ends_after_its_content_length() {
    check("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1", 200, "{}", "HTTP/1.1");
    check("HTTP/1.1 401 Unauthorized\r\ncontent-length:5\r\nx: y\r\n\r\nwrong", 401, "wrong", "");
}

#[test]
fn a_chunked_response_ends_after_the_empty_chunk() {
    check("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\nnext", 200, "2\r\n{}\r\n", "next");
}

#[test]
fn a_response_without_a_body_ends_after_its_head() {
    check("HTTP/1.1 204 No Content\r\n\r\nnext", 204, "", "next");
}

#[test]
fn an_incomplete_response_is_not_returned() {
    let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
    for cut in 0..whole.len() {
        assert_eq!(Response::parse(&whole[..cut]).expect("valid so far"), None, "{cut} bytes");
    }
}

#[test]
fn connection_close_marks_the_last_response() {
    for (head, is_last) in [("Connection: close\r\n", true), ("connection: keep-alive\r\n", false), ("", false)] {
        let bytes = format!("HTTP/1.1 200 OK\r\n{head}Content-Length: 0\r\n\r\n");
        let (response, _) = Response::parse(bytes.as_bytes()).expect("valid").expect("complete");
        assert_eq!(response.is_last, is_last, "{head}");
    }
}
