//! Rust text with comments and literals blanked out, so that braces can be counted.

/// Replaces comments, strings and characters by spaces; line breaks stay where they are.
pub(crate) fn without_comments_and_literals(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut kept = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let skipped = skip(bytes, at);
        if skipped == 0 {
            kept.push(bytes[at]);
            at += 1;
        } else {
            let end = (at + skipped).min(bytes.len());
            kept.extend(bytes[at..end].iter().map(|byte| if *byte == b'\n' { b'\n' } else { b' ' }));
            at = end;
        }
    }
    String::from_utf8(kept).expect("only whole literals and comments were replaced")
}

/// How many bytes from `at` belong to a comment or a literal; 0 if none starts there.
fn skip(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let inside_word = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
    match rest {
        [b'/', b'/', ..] => rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()),
        [b'/', b'*', ..] => block_comment(rest),
        [b'"', ..] => string(rest),
        [b'r', b'"' | b'#', ..] if !inside_word => raw_string(rest),
        [b'b', b'r', b'"' | b'#', ..] if !inside_word => raw_string(&rest[1..]).checked_add(1).unwrap_or(0),
        [b'\'', ..] => character(rest),
        _ => 0,
    }
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        match &rest[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn string(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// 0 if it is a raw identifier, such as `r#type`, and not a string.
fn raw_string(rest: &[u8]) -> usize {
    let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
    if rest.get(1 + hashes) != Some(&b'"') {
        return 0;
    }
    let mut end = vec![b'"'];
    end.resize(1 + hashes, b'#');
    let start = 2 + hashes;
    let found = rest[start..].windows(end.len()).position(|window| window == end);
    found.map_or(rest.len(), |position| start + position + end.len())
}

/// 0 if it is a lifetime and not a character.
fn character(rest: &[u8]) -> usize {
    if rest.get(1) == Some(&b'\\') {
        let end = rest.iter().skip(3).position(|byte| *byte == b'\'');
        return end.map_or(0, |position| position + 4);
    }
    // One character of up to four bytes, then the closing quote.
    let width = match rest.get(1) {
        Some(0xf0..) => 4,
        Some(0xe0..) => 3,
        Some(0xc0..) => 2,
        _ => 1,
    };
    if rest.get(1 + width) == Some(&b'\'') { width + 2 } else { 0 }
}

#[test]
fn braces_in_comments_strings_and_characters_are_gone_and_lines_stay() {
    let text = "a { // {\n/* { /* { */ */ \"{ \\\" {\n\" r#\"{\"{\"# '{' '\\'' '\\u{7f}' '…' &'a str b'{' br\"{\" r#type }\n";
    let bare = without_comments_and_literals(text);
    assert_eq!(bare.matches('{').count(), 1, "{bare}");
    assert_eq!(bare.matches('}').count(), 1, "{bare}");
    assert_eq!(bare.lines().count(), text.lines().count());
    assert!(bare.contains("&'a str") && bare.contains("r#type"), "{bare}");
}
