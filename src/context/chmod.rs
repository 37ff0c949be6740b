use super::Error;

/// What `--chmod` does to a mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Chmod {
    /// Puts this in its place.
    Set(u32),
    /// Changes it, one clause after the other.
    Change(Vec<Clause>),
}

/// One clause of a symbolic mode: `u=rwX`, `go-w`, `+x`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Clause {
    /// The bits of user, group and others that are spoken of, in each place where permissions and
    /// setuid, setgid and sticky can be.
    who: u32,
    /// Whether nobody was named, so that the umask holds back what it usually does.
    masked: bool,
    operation: u8,
    what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    /// These bits for everyone; and whether `X` is among them.
    Bits(u32, bool),
    /// The bits that user (6), group (3) or others (0) have: the distance to shift.
    Copy(u32),
}

const USER: u32 = 0o4700;
const GROUP: u32 = 0o2070;
const OTHERS: u32 = 0o1007;
/// The umask that a clause without `ugoa` is held back by.
const UMASK: u32 = 0o022;

impl Chmod {
    /// Reads an octal or symbolic mode.
    pub(super) fn parse(text: &str) -> Result<Chmod, Error> {
        let wrong = || {
            Error::Chmod(format!(
                "invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777"
            ))
        };
        if text.bytes().next().is_some_and(|c| c.is_ascii_digit()) {
            return match u32::from_str_radix(text, 8) {
                Ok(mode) if mode <= 0o7777 => Ok(Chmod::Set(mode)),
                _ => Err(wrong()),
            };
        }
        let mut clauses = Vec::new();
        for part in text.split(',') {
            clause(part.as_bytes(), &mut clauses)
                .ok_or_else(|| Error::Chmod(format!("invalid chmod parameter: '{text}'")))?;
        }
        Ok(Chmod::Change(clauses))
    }

    /// Gives the mode of a file or directory after it.
    pub(super) fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        match self {
            Chmod::Set(mode) => *mode,
            Chmod::Change(clauses) => clauses
                .iter()
                .fold(mode, |mode, clause| clause.apply(mode, is_dir)),
        }
    }
}

impl Clause {
    fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        let bits = match self.what {
            What::Bits(bits, execute) => {
                let execute = execute && (is_dir || mode & 0o111 != 0);
                bits | if execute { 0o111 } else { 0 }
            }
            What::Copy(shift) => ((mode >> shift) & 7) * 0o111,
        };
        let mask = if self.masked { !UMASK } else { !0 };
        let bits = bits & self.who & mask;
        match self.operation {
            b'+' => mode | bits,
            b'-' => mode & !bits,
            // What is not spoken of stays: the special bits of a directory do not go with `=`.
            _ => (mode & !(self.who & if is_dir { 0o777 } else { 0o7777 })) | bits,
        }
    }
}

/// Reads `[ugoa]*([-+=]([rwxXst]*|[ugo]))+`.
fn clause(text: &[u8], out: &mut Vec<Clause>) -> Option<()> {
    let named = text.iter().take_while(|c| b"ugoa".contains(c)).count();
    let (names, mut rest) = text.split_at(named);
    let mut who = names.iter().fold(0, |who, c| {
        who | match c {
            b'u' => USER,
            b'g' => GROUP,
            b'o' => OTHERS,
            _ => 0o7777,
        }
    });
    let masked = who == 0;
    if masked {
        who = 0o7777;
    }
    if rest.is_empty() {
        return None;
    }
    while let Some((&operation, after)) = rest.split_first() {
        if !b"+-=".contains(&operation) {
            return None;
        }
        let length = after.iter().take_while(|c| !b"+-=".contains(c)).count();
        let (letters, next) = after.split_at(length);
        let what = match letters {
            b"u" => What::Copy(6),
            b"g" => What::Copy(3),
            b"o" => What::Copy(0),
            letters => {
                let mut bits = 0;
                let mut execute = false;
                for letter in letters {
                    match letter {
                        b'r' => bits |= 0o444,
                        b'w' => bits |= 0o222,
                        b'x' => bits |= 0o111,
                        b'X' => execute = true,
                        b's' => bits |= 0o6000,
                        b't' => bits |= 0o1000,
                        _ => return None,
                    }
                }
                What::Bits(bits, execute)
            }
        };
        out.push(Clause {
            who,
            masked,
            operation,
            what,
        });
        rest = next;
    }
    Some(())
}
