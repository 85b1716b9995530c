//! Multipart bodies (RFC 7578), as browsers send forms with files.

use bytes::Bytes;

/// What stands between the parts. No part holds it: it is made longer until that is so.
const BOUNDARY: &str = "----bottle-session-test";

/// A field or a file of a form.
pub(super) struct Part {
    pub(super) name: String,
    /// Its name and its type, where it is a file.
    pub(super) file: Option<(String, String)>,
    pub(super) content: Bytes,
}

/// The type and the body of a form of these parts.
pub(super) fn encode(parts: &[Part]) -> (String, Vec<u8>) {
    let mut boundary = BOUNDARY.to_owned();
    while parts.iter().any(|part| contains(&part.content, boundary.as_bytes())) {
        boundary.push('x');
    }
    let mut body = Vec::new();
    for part in parts {
        let mut head = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"{}\"",
            escaped(&part.name)
        );
        if let Some((file, content_type)) = &part.file {
            head += &format!("; filename=\"{}\"\r\nContent-Type: {content_type}", escaped(file));
        }
        body.extend(head.into_bytes());
        body.extend(b"\r\n\r\n");
        body.extend(&part.content);
        body.extend(b"\r\n");
    }
    body.extend(format!("--{boundary}--\r\n").into_bytes());
    (format!("multipart/form-data; boundary={boundary}"), body)
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    memchr::memmem::find(text, part).is_some()
}

/// A name as browsers write it into a quoted parameter (HTML, "multipart/form-data encoding algorithm").
fn escaped(name: &str) -> String {
    name.replace('\r', "%0D").replace('\n', "%0A").replace('"', "%22")
}
