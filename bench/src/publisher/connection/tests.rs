use super::*;

#[track_caller]
fn check(bytes: &str, status: u16, body: &str, left: &str) {
    let (answer, length) = Answer::parse(bytes.as_bytes()).expect("an answer").expect("a whole one");
    assert_eq!((answer.status, answer.body.as_str()), (status, body));
    assert_eq!(&bytes[length..], left);
}

#[test]
fn answers_end_where_their_length_says() {
    check("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1", 200, "{}", "HTTP/1.1");
    check("HTTP/1.1 401 Unauthorized\r\ncontent-length:5\r\nx: y\r\n\r\nwrong", 401, "wrong", "");
}

#[test]
fn answers_in_chunks_end_with_the_empty_one() {
    check("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\nnext", 200, "2\r\n{}\r\n", "next");
}

#[test]
fn an_answer_without_a_body_ends_with_its_head() {
    check("HTTP/1.1 204 No Content\r\n\r\nnext", 204, "", "next");
}

#[test]
fn a_part_of_an_answer_is_none() {
    let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
    for cut in 0..whole.len() {
        assert_eq!(Answer::parse(&whole[..cut]).expect("no mistake yet"), None, "{cut} bytes");
    }
}

#[test]
fn an_answer_says_whether_it_is_the_last() {
    for (head, is_last) in [("Connection: close\r\n", true), ("connection: keep-alive\r\n", false), ("", false)] {
        let bytes = format!("HTTP/1.1 200 OK\r\n{head}Content-Length: 0\r\n\r\n");
        let (answer, _) = Answer::parse(bytes.as_bytes()).expect("an answer").expect("a whole one");
        assert_eq!(answer.is_last, is_last, "{head}");
    }
}
