//! Tars made by hand, so that they can be as wrong as wanted.

/// An archive in the making.
#[derive(Clone, Default)]
pub struct Tar {
    pub bytes: Vec<u8>,
    pub mode: u32,
    pub uid: u64,
    pub mtime: i64,
}

/// Starts an archive.
pub fn tar() -> Tar {
    Tar {
        bytes: Vec::new(),
        mode: 0o644,
        uid: 0,
        mtime: 1_600_000_000,
    }
}

/// Fills in the checksum of a header.
pub fn seal(block: &mut [u8]) {
    block[148..156].fill(b' ');
    let sum: u32 = block[..512].iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

impl Tar {
    pub fn header(&self, name: &[u8], kind: u8, size: u64, target: &[u8]) -> [u8; 512] {
        let mut block = [0; 512];
        block[..name.len().min(100)].copy_from_slice(&name[..name.len().min(100)]);
        let mut put = |at: usize, text: String| {
            block[at..at + text.len()].copy_from_slice(text.as_bytes());
        };
        put(100, format!("{:07o}", self.mode));
        put(108, format!("{:07o}", self.uid));
        put(116, format!("{:07o}", self.uid));
        put(124, format!("{size:011o}"));
        put(136, format!("{:011o}", self.mtime));
        put(257, "ustar\x0000".to_owned());
        put(329, "0000001".to_owned());
        put(337, "0000003".to_owned());
        block[156] = kind;
        block[157..157 + target.len().min(100)].copy_from_slice(&target[..target.len().min(100)]);
        seal(&mut block);
        block
    }

    pub fn raw(mut self, bytes: &[u8]) -> Tar {
        self.bytes.extend_from_slice(bytes);
        self
    }

    pub fn data(mut self, content: &[u8]) -> Tar {
        self.bytes.extend_from_slice(content);
        let len = self.bytes.len().next_multiple_of(512);
        self.bytes.resize(len, 0);
        self
    }

    pub fn entry(self, name: impl AsRef<[u8]>, kind: u8, content: &[u8]) -> Tar {
        let head = self.header(name.as_ref(), kind, content.len() as u64, b"");
        self.raw(&head).data(content)
    }

    pub fn file(self, name: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> Tar {
        self.entry(name, b'0', content.as_ref())
    }

    pub fn dir(self, name: impl AsRef<[u8]>, mode: u32) -> Tar {
        let before = self.mode;
        let mut made = Tar { mode, ..self }.entry(name, b'5', b"");
        made.mode = before;
        made
    }

    pub fn link(self, name: impl AsRef<[u8]>, kind: u8, target: impl AsRef<[u8]>) -> Tar {
        let head = self.header(name.as_ref(), kind, 0, target.as_ref());
        self.raw(&head)
    }

    pub fn symlink(self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Tar {
        self.link(name, b'2', target)
    }

    pub fn hard(self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Tar {
        self.link(name, b'1', target)
    }

    pub fn pax(self, kind: u8, records: &[(&[u8], &[u8])]) -> Tar {
        let mut body = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut len = rest + 1;
            while len != rest + len.to_string().len() {
                len = rest + len.to_string().len();
            }
            body.extend_from_slice(format!("{len} ").as_bytes());
            body.extend_from_slice(key);
            body.push(b'=');
            body.extend_from_slice(value);
            body.push(b'\n');
        }
        self.entry("PaxHeaders/x", kind, &body)
    }

    /// Ends the archive.
    pub fn end(self) -> Vec<u8> {
        self.raw(&[0; 1024]).bytes
    }
}
