//! YAML that its readers of version 1.1, kubectl among them, and those of 1.2 read as the same. Pure.

use serde_json::Value;

/// Signs that are no control characters, and that a reader takes for the end of a line, or refuses.
pub const BREAKS: [char; 5] = ['\u{2028}', '\u{2029}', '\u{feff}', '\u{fffe}', '\u{ffff}'];

/// A document, or a part of it. Each text in it is read as a text.
pub fn write(value: &Value) -> String {
    let mut out = String::new();
    block(value, "", &mut out);
    out
}

/// The lines of a mapping or a list, each behind the indent.
fn block(value: &Value, indent: &str, out: &mut String) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (at, (name, value)) in fields.iter().enumerate() {
                // The first one stands behind what leads to it.
                out.push_str(if at == 0 { "" } else { indent });
                out.push_str(&text(name));
                out.push(':');
                match value {
                    Value::Object(inner) if !inner.is_empty() => {
                        let deeper = format!("{indent}  ");
                        out.extend(["\n", &deeper]);
                        block(value, &deeper, out);
                    }
                    Value::Array(inner) if !inner.is_empty() => {
                        out.extend(["\n", indent]);
                        block(value, indent, out);
                    }
                    scalar => {
                        out.push(' ');
                        block(scalar, indent, out);
                    }
                }
            }
        }
        Value::Array(values) if !values.is_empty() => {
            for (at, value) in values.iter().enumerate() {
                out.push_str(if at == 0 { "" } else { indent });
                out.push_str("- ");
                block(value, &format!("{indent}  "), out);
            }
        }
        Value::String(value) => out.push_str(&(text(value) + "\n")),
        // Numbers, truth values and what is empty are as in JSON.
        other => out.push_str(&(other.to_string() + "\n")),
    }
}

/// A text: bare where nobody can take it for anything else, and in quotes where there is a doubt.
pub fn text(text: &str) -> String {
    if text.chars().any(|c| c.is_control() || BREAKS.contains(&c)) {
        return escaped(text);
    }
    if is_plain(text) { text.to_owned() } else { format!("'{}'", text.replace('\'', "''")) }
}

/// What version 1.1 takes for truth or nothing.
const WORDS: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];

fn is_plain(text: &str) -> bool {
    let inside = |c: char| c.is_ascii_alphanumeric() || "-_./\\=@%+,~$():".contains(c);
    let mut after_signs = text.trim_start_matches(['-', '+']).chars();
    let begins = match after_signs.next() {
        Some(first) if first.is_ascii_alphabetic() || (first == '_' && !text.starts_with('+')) => true,
        Some('/' | '$') => true,
        // Numbers, times and dates have only these letters.
        Some(first) if first.is_ascii_digit() => {
            text.contains(|c: char| matches!(c, 'G'..='N' | 'g'..='n' | 'P'..='S' | 'p'..='s'))
        }
        _ => false,
    };
    let colon = text.ends_with(':') || text.contains(": ");
    begins && text.chars().all(inside) && !colon && !WORDS.iter().any(|word| text.eq_ignore_ascii_case(word))
}

fn escaped(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            // All of them are of the first plane.
            c if c.is_control() || BREAKS.contains(&c) => out.extend(["\\u", &format!("{:04x}", u32::from(c))]),
            c => out.push(c),
        }
    }
    out + "\""
}
