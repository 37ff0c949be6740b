use super::archive::Archive;
use super::stream::write_to;
use super::{Error, Export, Finished, failed};
use crate::oci::Reference;
use crate::request::Place;
use serde_json::json;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, Read};

const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Writes a docker-archive that `docker load`, `podman load` and skopeo take. A file is put in place
/// by a rename.
///
/// Layers go in as they are, which every reader takes for gzip; zstd is decompressed, since Docker
/// before 23 cannot read it.
pub fn write_docker_tar(
    image: &Finished,
    names: &[Reference],
    place: &Place,
    export: &Export<'_>,
) -> Result<(), Error> {
    write_to(place, export, |out| {
        let mut archive = Archive { out };
        let config = image.manifest.config.digest.to_string();
        archive.bytes(&config, &image.config_bytes)?;
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
            if !written.insert(layer.digest) {
                layers.push(name);
                continue;
            }
            if zstd {
                // A header wants the size first, so it is decompressed twice.
                let fail = || failed("decompress", blob);
                let mut tar = Watched(decoder(open()?).map_err(fail())?, export);
                let size = io::copy(&mut tar, &mut io::sink());
                let size = size.map_err(|e| archive.out.failed("decompress", blob)(e))?;
                let mut tar = decoder(open()?).map_err(fail())?;
                let added = archive.stream(&name, size, &mut tar);
                added.map_err(|e| archive.out.failed("decompress", blob)(e))?;
            } else {
                archive.blob(&name, layer.size, blob)?;
            }
            layers.push(name);
        }
        let tags: Vec<String> = names
            .iter()
            .filter_map(|name| Some(format!("{}:{}", name.name(), name.tag.as_ref()?)))
            .collect();
        let manifest = json!([{ "Config": config, "RepoTags": tags, "Layers": layers }]);
        archive.bytes("manifest.json", manifest.to_string().as_bytes())?;
        archive.end()
    })
}

type Decoder = zstd::stream::Decoder<'static, BufReader<File>>;

fn decoder(file: File) -> io::Result<Decoder> {
    zstd::stream::Decoder::with_buffer(BufReader::with_capacity(256 << 10, file))
}

/// Ends with the build.
struct Watched<'a>(Decoder, &'a Export<'a>);

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.1.cancel.is_set() {
            return Err(io::Error::other("cancelled"));
        }
        self.0.read(buffer)
    }
}
