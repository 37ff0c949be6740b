use super::Error;
use crate::fs::{RelPath, Tree};

/// The most bytes /etc/passwd and /etc/group may have: 16 MiB.
const MAX_DATABASE: u64 = 16 << 20;

/// The highest user or group that a command may run as.
const MAX_ID: u32 = i32::MAX.unsigned_abs();

/// A user by number, as the image's own files have it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
    /// Home directory, `/` where there is none.
    pub home: String,
}

/// Looks up `USER name[:group]` in the tree's /etc/passwd and /etc/group, as runc does; numbers
/// need no entry.
pub fn user(spec: &str, tree: &Tree) -> Result<User, Error> {
    let (name, group) = spec.split_once(':').unwrap_or((spec, ""));
    let number = name.parse::<u32>().ok();
    let accounts = accounts(tree)?;
    let account = accounts.iter().find(|account| match number {
        _ if name.is_empty() => account.uid == 0,
        Some(uid) => account.uid == uid,
        None => account.name == name.as_bytes(),
    });
    let mut user = User {
        home: "/".into(),
        ..User::default()
    };
    match (account, number) {
        (Some(account), _) => {
            user.uid = account.uid;
            user.gid = account.gid;
            if !account.home.is_empty() {
                user.home = String::from_utf8_lossy(&account.home).into_owned();
            }
        }
        (None, Some(uid)) => user.uid = uid,
        (None, None) if name.is_empty() => {}
        (None, None) => return Err(Error::NoUser(name.to_owned())),
    }
    if !group.is_empty() {
        let number = group.parse::<u32>().ok();
        let groups = groups(tree)?;
        let entry = groups.iter().find(|entry| match number {
            Some(gid) => entry.gid == gid,
            None => entry.name == group.as_bytes(),
        });
        user.gid = match (entry, number) {
            (Some(entry), _) => entry.gid,
            (None, Some(gid)) => gid,
            (None, None) => return Err(Error::NoGroup(group.to_owned())),
        };
    } else if let Some(account) = account
        && !name.is_empty()
    {
        user.groups = groups(tree)?
            .into_iter()
            .filter(|entry| entry.members.contains(&account.name))
            .map(|entry| entry.gid)
            .collect();
    }
    // To the kernel the highest number means "no change", which would leave the command root.
    if [user.uid, user.gid]
        .iter()
        .chain(&user.groups)
        .any(|id| *id > MAX_ID)
    {
        return Err(Error::UserRange(spec.to_owned()));
    }
    Ok(user)
}

/// Where `--chown` looks names up.
#[derive(Clone, Copy)]
pub(super) enum Names<'a> {
    /// In the files of the image.
    Tree(&'a Tree),
    /// Nowhere, for this reason.
    Nowhere(&'static str),
}

/// Looks up `--chown=user[:group]` the way BuildKit does: a number stands for user and group, a name
/// that the image does not have for 0, and so does nothing at all on either side of the colon.
/// `root` needs no entry.
pub(super) fn chown(spec: &str, names: Names<'_>) -> Result<(u32, u32), Error> {
    let (name, group) = match spec.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (spec, None),
    };
    let tree = |name: &str| match names {
        Names::Tree(tree) => Ok(tree),
        Names::Nowhere(why) => Err(Error::NoNames {
            name: name.to_owned(),
            why,
        }),
    };
    let (uid, mut gid) = match id(name) {
        Some(number) => (number, number),
        None => accounts(tree(name)?)?
            .iter()
            .find(|account| account.name == name.as_bytes())
            .map_or((0, 0), |account| (account.uid, account.gid)),
    };
    if let Some(group) = group {
        gid = match id(group) {
            Some(number) => number,
            None => groups(tree(group)?)?
                .iter()
                .find(|entry| entry.name == group.as_bytes())
                .map_or(gid, |entry| entry.gid),
        };
    }
    // Only the image's own files can say so: to the kernel it means "no change".
    if uid == u32::MAX || gid == u32::MAX {
        return Err(Error::UserRange(spec.to_owned()));
    }
    Ok((uid, gid))
}

/// Tells whether a user and group, as in USER or `--chown`, have to be looked up in the files of an image.
pub fn is_looked_up(owner: &str) -> bool {
    owner.split(':').any(|word| id(word).is_none())
}

/// Gives the number that a word of `--chown` is without being looked up. Numbers that are no id pass
/// for names.
fn id(word: &str) -> Option<u32> {
    match word {
        "" | "root" => Some(0),
        word => word
            .parse::<i32>()
            .ok()
            .and_then(|id| u32::try_from(id).ok()),
    }
}

struct Account {
    name: Vec<u8>,
    uid: u32,
    gid: u32,
    home: Vec<u8>,
}

struct Group {
    name: Vec<u8>,
    gid: u32,
    members: Vec<Vec<u8>>,
}

fn accounts(tree: &Tree) -> Result<Vec<Account>, Error> {
    Ok(lines(tree, b"etc/passwd")?
        .iter()
        .filter_map(|fields| {
            Some(Account {
                name: fields.first()?.clone(),
                uid: number(fields.get(2)?)?,
                gid: number(fields.get(3)?)?,
                home: fields.get(5).cloned().unwrap_or_default(),
            })
        })
        .collect())
}

fn groups(tree: &Tree) -> Result<Vec<Group>, Error> {
    Ok(lines(tree, b"etc/group")?
        .iter()
        .filter_map(|fields| {
            let members = fields.get(3).map(Vec::as_slice).unwrap_or_default();
            Some(Group {
                name: fields.first()?.clone(),
                gid: number(fields.get(2)?)?,
                members: members
                    .split(|&c| c == b',')
                    .filter(|name| !name.is_empty())
                    .map(<[u8]>::to_vec)
                    .collect(),
            })
        })
        .collect())
}

/// Reads a file of lines with fields between colons; none where there is no such file.
fn lines(tree: &Tree, path: &[u8]) -> Result<Vec<Vec<Vec<u8>>>, Error> {
    let Some(path) = RelPath::clean(path) else {
        return Ok(Vec::new());
    };
    let text = tree
        .read(&path, MAX_DATABASE)
        .map_err(|error| Error::io("read", &path, error))?
        .unwrap_or_default();
    Ok(text
        .split(|&c| c == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty())
        .map(|line| line.split(|&c| c == b':').map(<[u8]>::to_vec).collect())
        .collect())
}

fn number(field: &[u8]) -> Option<u32> {
    std::str::from_utf8(field).ok()?.parse().ok()
}
