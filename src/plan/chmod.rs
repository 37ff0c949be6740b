//! `--chmod`: octal and symbolic modes.

/// What `--chmod` does to a mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chmod {
    how: How,
    text: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum How {
    /// Puts this in its place.
    Set(u32),
    /// Changes it, one step after the other.
    Change(Vec<Step>),
}

/// A step of a symbolic mode: `u=rwX` is three.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// Takes these bits away.
    Clear(u32),
    /// Adds these bits.
    Add(u32),
    /// Adds these bits to directories and to what was executable for somebody to begin with.
    AddSearch(u32),
    /// Takes these bits from directories and from what was executable for somebody.
    ClearSearch(u32),
    /// Gives classes the permissions that a class has by now.
    Copy {
        /// The distance to shift from others (0) to group (3) or user (6).
        from: u32,
        /// Permission bits of those who get them.
        to: u32,
        operation: u8,
    },
}

const USER: u32 = 0o4700;
const GROUP: u32 = 0o2070;
const OTHERS: u32 = 0o0007;
/// Whom a clause speaks of that names nobody: all but the sticky bit.
const ALL: u32 = USER | GROUP | OTHERS;
const STICKY: u32 = 0o1000;

impl Chmod {
    /// Reads an octal mode, or a symbolic one as BSD's `setmode` does with an empty file mode
    /// creation mask: BuildKit clears its own. The error is what is wrong.
    pub fn parse(text: &str) -> Result<Chmod, String> {
        if text.bytes().next().is_some_and(|c| c.is_ascii_digit()) {
            return match u32::from_str_radix(text, 8) {
                Ok(mode) if mode <= 0o7777 => Ok(Chmod {
                    how: How::Set(mode),
                    text: text.to_owned(),
                }),
                _ => Err(format!(
                    "invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777"
                )),
            };
        }
        let mut steps = Vec::new();
        for part in text.split(',') {
            clause(part.as_bytes(), &mut steps)
                .ok_or_else(|| format!("invalid chmod parameter: '{text}'"))?;
        }
        Ok(Chmod {
            how: How::Change(steps),
            text: text.to_owned(),
        })
    }

    /// Gives it as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Gives the mode of a copied file or directory after it.
    pub fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        match &self.how {
            How::Set(mode) => *mode,
            How::Change(steps) => {
                let search = is_dir || mode & 0o111 != 0;
                steps.iter().fold(mode, |now, step| step.apply(now, search))
            }
        }
    }

    /// Gives the mode of a directory that has to be made: the permissions of an octal mode, and
    /// nothing of a symbolic one.
    pub fn made(&self) -> u32 {
        match self.how {
            How::Set(mode) => mode & 0o777,
            How::Change(_) => 0o755,
        }
    }
}

impl Step {
    fn apply(&self, mode: u32, search: bool) -> u32 {
        match *self {
            Step::Clear(bits) => mode & !bits,
            Step::Add(bits) => mode | bits,
            Step::AddSearch(bits) if search => mode | bits,
            Step::ClearSearch(bits) if search => mode & !bits,
            Step::AddSearch(_) | Step::ClearSearch(_) => mode,
            Step::Copy {
                from,
                to,
                operation,
            } => {
                let bits = (((mode >> from) & 7) * 0o111) & to;
                match operation {
                    b'+' => mode | bits,
                    b'-' => mode & !bits,
                    _ => mode & !to | bits,
                }
            }
        }
    }
}

/// Reads `[ugoa]*([-+=][rwxXstugo]*)+`.
fn clause(text: &[u8], out: &mut Vec<Step>) -> Option<()> {
    let named = text.iter().take_while(|c| b"ugoa".contains(c)).count();
    let (names, mut rest) = text.split_at(named);
    let named = names.iter().fold(0, |who, c| {
        who | match c {
            b'u' => USER,
            b'g' => GROUP,
            b'o' => OTHERS,
            _ => ALL,
        }
    });
    if rest.is_empty() {
        return None;
    }
    while let Some((&operation, after)) = rest.split_first() {
        if !b"+-=".contains(&operation) {
            return None;
        }
        let length = after.iter().take_while(|c| !b"+-=".contains(c)).count();
        let (letters, next) = after.split_at(length);
        operate(named, operation, letters, out)?;
        rest = next;
    }
    Some(())
}

/// Reads the letters behind one of `+-=`.
fn operate(named: u32, operation: u8, letters: &[u8], out: &mut Vec<Step>) -> Option<()> {
    // What is said of others alone says nothing of the special bits.
    let special = named == 0 || named & !OTHERS != 0;
    let mut who = named;
    let (mut bits, mut search) = (0, false);
    // `=` takes away once, before it gives.
    let mut cleared = operation != b'=';
    for letter in letters {
        match letter {
            b'r' => bits |= 0o444,
            b'w' => bits |= 0o222,
            b'x' => bits |= 0o111,
            b'X' => search = true,
            b's' if special => bits |= 0o6000,
            b't' if special => {
                bits |= STICKY;
                who |= STICKY;
            }
            b's' | b't' => {}
            b'u' | b'g' | b'o' => {
                if bits != 0 {
                    give(who, operation, bits, out);
                    bits = 0;
                }
                if search {
                    give_search(who, operation, out);
                    search = false;
                }
                cleared = true;
                let whom = if who == 0 { ALL } else { who };
                out.push(Step::Copy {
                    from: match letter {
                        b'u' => 6,
                        b'g' => 3,
                        _ => 0,
                    },
                    to: whom & 0o777,
                    operation,
                });
            }
            _ => return None,
        }
    }
    if bits != 0 || !cleared {
        give(who, operation, bits, out);
    }
    if search {
        give_search(who, operation, out);
    }
    Some(())
}

fn give(who: u32, operation: u8, bits: u32, out: &mut Vec<Step>) {
    let bits = if who == 0 { bits } else { bits & who };
    match operation {
        b'+' => out.push(Step::Add(bits)),
        b'-' => out.push(Step::Clear(bits)),
        _ => {
            out.push(Step::Clear(if who == 0 { ALL } else { who }));
            out.push(Step::Add(bits));
        }
    }
}

fn give_search(who: u32, operation: u8, out: &mut Vec<Step>) {
    let bits = if who == 0 { 0o111 } else { 0o111 & who };
    out.push(match operation {
        b'-' => Step::ClearSearch(bits),
        _ => Step::AddSearch(bits),
    });
}
