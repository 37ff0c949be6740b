use super::{Error, Finished, failed, put_in_place};
use crate::fs::{Meta, RelPath};
use crate::layer::tar;
use crate::oci::Reference;
use serde_json::json;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Writes a docker-archive that `docker load`, `podman load` and skopeo take. Put in place by a rename.
///
/// Layers go in as they are, which every reader takes for gzip; zstd is decompressed, since Docker
/// before 23 cannot read it.
pub fn write_docker_tar(image: &Finished, names: &[Reference], file: &Path) -> Result<(), Error> {
    put_in_place(file, |partial| {
        let out = File::create(partial).map_err(failed("create", partial))?;
        let mut archive = Archive { out };
        let fail = |e| failed("write", partial)(e);

        let config = image.manifest.config.digest.to_string();
        archive.bytes(&config, &image.config_bytes).map_err(fail)?;
        let mut layers = Vec::new();
        let mut written = BTreeSet::new();
        for (layer, blob) in image.manifest.layers.iter().zip(&image.blobs) {
            let open = || File::open(blob).map_err(failed("open", blob));
            let mut magic = Vec::new();
            open()?
                .take(ZSTD_MAGIC.len() as u64)
                .read_to_end(&mut magic)
                .map_err(failed("read", blob))?;
            let hex = layer.digest.hex();
            let zstd = magic == ZSTD_MAGIC;
            let name = if zstd {
                format!("{hex}.tar")
            } else {
                format!("{hex}.tar.gz")
            };
            if written.insert(layer.digest) {
                let source = || Ok::<_, Error>(BufReader::with_capacity(256 << 10, open()?));
                let fail = || failed("put into the archive", blob);
                if zstd {
                    // A header wants the size first, so it is decompressed twice.
                    let size = decoder(source()?)
                        .and_then(|mut tar| io::copy(&mut tar, &mut io::sink()))
                        .map_err(fail())?;
                    decoder(source()?)
                        .and_then(|tar| archive.stream(&name, size, tar))
                        .map_err(fail())?;
                } else {
                    archive
                        .stream(&name, layer.size, source()?)
                        .map_err(fail())?;
                }
            }
            layers.push(name);
        }
        let tags: Vec<String> = names
            .iter()
            .filter_map(|name| Some(format!("{}:{}", name.name(), name.tag.as_ref()?)))
            .collect();
        let manifest = json!([{ "Config": config, "RepoTags": tags, "Layers": layers }]);
        archive
            .bytes("manifest.json", manifest.to_string().as_bytes())
            .and_then(|()| archive.end())
            .map_err(fail)
    })
}

fn decoder(source: BufReader<File>) -> io::Result<zstd::stream::Decoder<'static, BufReader<File>>> {
    zstd::stream::Decoder::with_buffer(source)
}

/// A tar that is written to a file.
struct Archive {
    out: File,
}

impl Archive {
    fn header(&mut self, name: &str, size: u64) -> io::Result<()> {
        let path = RelPath::clean(name.as_bytes()).unwrap_or_default();
        let mut head = Vec::new();
        let meta = Meta::file(0o644, size, Default::default());
        tar::header(&mut head, &path, &meta, None, 0).map_err(io::Error::other)?;
        self.out.write_all(&head)
    }

    fn bytes(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.header(name, bytes.len() as u64)?;
        self.out.write_all(bytes)?;
        self.pad(bytes.len() as u64)
    }

    fn stream(&mut self, name: &str, size: u64, source: impl Read) -> io::Result<()> {
        self.header(name, size)?;
        let copied = io::copy(&mut source.take(size + 1), &mut self.out)?;
        if copied != size {
            return Err(io::Error::other(format!(
                "it has {copied} bytes or more, {size} were expected"
            )));
        }
        self.pad(size)
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        self.out.write_all(&vec![0; tar::padding(size)])
    }

    fn end(&mut self) -> io::Result<()> {
        let mut end = Vec::new();
        tar::end(&mut end);
        self.out.write_all(&end)
    }
}
