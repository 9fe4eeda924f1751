//! As much of Rust's lexical grammar as it takes to tell code from comments and strings.

/// The code alone: comments, strings and character literals become spaces, lines stay where they are.
pub(super) fn code(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = vec![b' '; bytes.len()];
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if starts(bytes, at, b"//") => line_end(bytes, at),
            b'/' if starts(bytes, at, b"/*") => comment_end(bytes, at),
            b'"' => string_end(bytes, at),
            b'r' | b'b' | b'c' if !in_word(bytes, at) => match raw_or_prefixed_end(bytes, at) {
                Some(end) => end,
                None => {
                    out[at] = bytes[at];
                    at + 1
                }
            },
            b'\'' if char_end(bytes, at).is_some() => char_end(bytes, at).unwrap_or(at + 1),
            byte => {
                out[at] = if byte.is_ascii() { byte } else { b' ' };
                at + 1
            }
        };
        for i in at..end.min(bytes.len()) {
            if bytes[i] == b'\n' {
                out[i] = b'\n';
            }
        }
        at = end.max(at + 1);
    }
    out.into_iter().map(char::from).collect()
}

/// Whether `word` stands in `line` as a whole word.
pub(super) fn has_word(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back().is_some_and(part);
        let after = line[at + word.len()..].chars().next().is_some_and(part);
        !before && !after
    })
}

fn starts(bytes: &[u8], at: usize, what: &[u8]) -> bool {
    bytes[at..].starts_with(what)
}

fn in_word(bytes: &[u8], at: usize) -> bool {
    at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_')
}

fn line_end(bytes: &[u8], at: usize) -> usize {
    bytes[at..].iter().position(|b| *b == b'\n').map_or(bytes.len(), |n| at + n)
}

fn comment_end(bytes: &[u8], at: usize) -> usize {
    let mut depth = 0;
    let mut i = at;
    while i < bytes.len() {
        if starts(bytes, i, b"/*") {
            depth += 1;
            i += 2;
        } else if starts(bytes, i, b"*/") {
            depth -= 1;
            i += 2;
            if depth == 0 {
                return i;
            }
        } else {
            i += 1;
        }
    }
    bytes.len()
}

/// After the closing quote of the string whose opening quote is at `at`.
fn string_end(bytes: &[u8], at: usize) -> usize {
    let mut i = at + 1;
    while i < bytes.len() {
        match bytes[i] {
            b'\\' => i += 2,
            b'"' => return i + 1,
            _ => i += 1,
        }
    }
    bytes.len()
}

/// The end of `r"…"`, `r#"…"#`, `b"…"`, `b'…'`, `br"…"`, `c"…"`; `None` where the letter begins a word.
fn raw_or_prefixed_end(bytes: &[u8], at: usize) -> Option<usize> {
    let letters = bytes[at..].iter().take(2).take_while(|b| matches!(b, b'r' | b'b' | b'c')).count();
    let raw = bytes[at..at + letters].contains(&b'r');
    let open = at + letters;
    if !raw {
        return match bytes.get(open) {
            Some(b'"') => Some(string_end(bytes, open)),
            Some(b'\'') => char_end(bytes, open),
            _ => None,
        };
    }
    let hashes = bytes[open..].iter().take_while(|b| **b == b'#').count();
    if bytes.get(open + hashes) != Some(&b'"') {
        return None;
    }
    let close = [b"\"".as_slice(), &vec![b'#'; hashes]].concat();
    let body = open + hashes + 1;
    let found = bytes[body..].windows(close.len()).position(|w| w == close);
    Some(found.map_or(bytes.len(), |n| body + n + close.len()))
}

/// The end of a character literal; `None` for a lifetime.
fn char_end(bytes: &[u8], at: usize) -> Option<usize> {
    if bytes.get(at + 1) == Some(&b'\\') {
        let tail = bytes.get(at + 3..)?;
        return tail.iter().position(|b| *b == b'\'').map(|n| at + 3 + n + 1);
    }
    // One character of up to four bytes, then the quote.
    let close = bytes.get(at + 2..)?.iter().take(4).position(|b| *b == b'\'')? + at + 2;
    let one = std::str::from_utf8(&bytes[at + 1..close]).is_ok_and(|s| s.chars().count() == 1);
    one.then_some(close + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_strings_vanish_and_code_stays() {
        let cases = [
            ("a // unsafe", "a"),
            ("/* unsafe /* unsafe */ unsafe */ b", "b"),
            (r#"let s = "unsafe \" unsafe"; c"#, "let s = ; c"),
            (r###"let s = r#"unsafe " unsafe"#; d"###, "let s = ; d"),
            ("let c = '\"'; e", "let c = ; e"),
            (r"let c = '\''; f", "let c = ; f"),
            ("fn g<'a>(x: &'a str) {}", "fn g<'a>(x: &'a str) {}"),
            (r#"b"unsafe" br"unsafe" b'"' h"#, "h"),
            ("let r = 1; let br = r; i", "let r = 1; let br = r; i"),
            ("let c = 'é'; // é\nj", "let c = ; j"),
        ];
        for (text, want) in cases {
            let words = |s: &str| s.split_whitespace().collect::<Vec<_>>().join(" ");
            assert_eq!(words(&code(text)), want, "{text}");
        }
    }

    #[test]
    fn lines_keep_their_numbers() {
        let text = "a\n/* b\n c */\nlet s = \"d\n e\";\nf";
        let out = code(text);
        assert_eq!(out.lines().count(), text.lines().count());
        assert_eq!(out.lines().next_back(), Some("f"));
    }

    #[test]
    fn unfinished_text_ends() {
        for text in ["\"abc", "/* abc", "r#\"abc\"", "'", "b'", "'\\", "\"\\", "r", "é'", "'é"] {
            assert_eq!(code(text).len(), text.len(), "{text}");
        }
    }

    #[test]
    fn words_are_whole() {
        assert!(has_word("x = unsafe { }", "unsafe"));
        assert!(!has_word("deny(unsafe_code)", "unsafe"));
        assert!(!has_word("an_unsafe", "unsafe"));
    }
}
