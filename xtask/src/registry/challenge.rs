//! What a registry asks for when it wants to know who we are (RFC 9110, section 11).

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// A way of saying who we are.
#[derive(Debug, PartialEq, Eq)]
pub enum Challenge {
    /// Name and password with every request.
    Basic,
    /// A token, which the server at `realm` gives.
    Bearer { realm: String, service: Option<String> },
}

/// The way to take of those a response offers: a token rather than the password.
pub fn best(headers: &HeaderMap) -> Option<Challenge> {
    let lines = headers.get_all(WWW_AUTHENTICATE).into_iter().filter_map(|it| it.to_str().ok());
    let offered: Vec<_> = lines.flat_map(parse).collect();
    let bearer = offered.iter().filter(|(scheme, _)| scheme == "bearer").find_map(|(_, params)| {
        let param = |name| params.iter().find(|(it, _)| it == name).map(|(_, value)| value.clone());
        Some(Challenge::Bearer { realm: param("realm")?, service: param("service") })
    });
    let basic = offered.iter().find(|(scheme, _)| scheme == "basic");
    bearer.or_else(|| basic.map(|_| Challenge::Basic))
}

/// The token in what a token server answers.
pub fn token(answer: &[u8]) -> Option<String> {
    let answer: serde_json::Value = serde_json::from_slice(answer).ok()?;
    let token = answer.get("token").or_else(|| answer.get("access_token"))?;
    token.as_str().filter(|it| !it.is_empty()).map(ToString::to_string)
}

type Params = Vec<(String, String)>;

/// `Scheme name=value, name="value", Scheme …`, names in lower case.
fn parse(header: &str) -> Vec<(String, Params)> {
    let mut challenges: Vec<(String, Params)> = Vec::new();
    let mut rest = header.trim_start();
    while !rest.is_empty() {
        let (word, tail) = rest.split_at(rest.find(['=', ' ', ',', '\t']).unwrap_or(rest.len()));
        rest = tail.trim_start();
        if let Some(tail) = rest.strip_prefix('=') {
            let value;
            (value, rest) = read_value(tail.trim_start());
            if let Some((_, params)) = challenges.last_mut() {
                params.push((word.to_ascii_lowercase(), value));
            }
        } else if !word.is_empty() {
            challenges.push((word.to_ascii_lowercase(), Vec::new()));
        }
        rest = rest.trim_start_matches([' ', ',', '\t']);
    }
    challenges
}

/// A word or a quoted string, and what follows it.
fn read_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let (word, rest) = text.split_at(text.find([' ', ',', '\t']).unwrap_or(text.len()));
        return (word.to_string(), rest);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            _ => value.push(char),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(headers: &[&str], expected: &str) {
        let mut map = HeaderMap::new();
        for header in headers {
            map.append(WWW_AUTHENTICATE, header.parse().unwrap());
        }
        let shown = match best(&map) {
            Some(Challenge::Basic) => "basic".to_string(),
            Some(Challenge::Bearer { realm, service }) => {
                format!("bearer {realm} {}", service.unwrap_or_default()).trim_end().to_string()
            }
            None => "none".to_string(),
        };
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_token_server_is_read_from_the_challenge() {
        let header = r#"Bearer realm="https://t.example/a?b=c",service="r.example",scope="a,b""#;
        check(&[header], "bearer https://t.example/a?b=c r.example");
    }

    #[test]
    fn names_are_read_in_any_case_and_values_with_escapes() {
        check(&[r#"bearer REALM="a\"b\\c" , Service = x"#], r#"bearer a"b\c x"#);
        check(&["BEARER realm=https://t.example/"], "bearer https://t.example/");
    }

    #[test]
    fn a_token_is_preferred_to_the_password() {
        check(&[r#"Basic realm="x", Bearer realm="y""#], "bearer y");
        check(&[r#"Basic realm="x""#, r#"Bearer realm="y""#], "bearer y");
    }

    #[test]
    fn a_password_is_asked_for_by_basic() {
        check(&[r#"Basic realm="Registry Realm""#], "basic");
    }

    #[test]
    fn what_cannot_be_answered_is_none() {
        check(&[], "none");
        check(&["Negotiate abc=="], "none");
        check(&["Bearer service=x"], "none");
        check(&["=,= ,,=\"", "\"", "Bearer realm=\"unclosed"], "bearer unclosed");
    }

    #[test]
    fn a_token_has_two_names() {
        assert_eq!(token(br#"{"token":"a"}"#).as_deref(), Some("a"));
        assert_eq!(token(br#"{"access_token":"b","expires_in":60}"#).as_deref(), Some("b"));
        assert_eq!(token(br#"{"token":""}"#), None);
        assert_eq!(token(b"no json"), None);
    }
}
