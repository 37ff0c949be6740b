use std::fmt;
use std::str::FromStr;

/// An operating system and processor, written `os/architecture[/variant]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Platform {
    /// The operating system by Go's name, `linux`.
    pub os: String,
    /// The architecture by Go's name, `amd64`.
    pub architecture: String,
    /// The variant of the architecture, `v8`.
    pub variant: Option<String>,
}

impl Platform {
    /// Gives the platform this program was compiled for.
    pub fn host() -> Platform {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "aarch64" => ("arm64", None),
            "x86" => ("386", None),
            "arm" => ("arm", Some("v7")),
            "powerpc64" => ("ppc64le", None),
            other => (other, None),
        };
        Platform {
            os: "linux".into(),
            architecture: architecture.into(),
            variant: variant.map(str::to_owned),
        }
    }

    /// Gives the platform as containerd writes it: without the variant that its architecture means by
    /// itself (`arm64/v8`, `amd64/v1`), with that of `arm`, which means none.
    pub fn normalized(self) -> Platform {
        let variant = match (self.architecture.as_str(), self.variant.as_deref()) {
            ("arm64", Some("8" | "v8")) | ("amd64", Some("v1")) => None,
            ("arm", None | Some("7")) => Some("v7".to_owned()),
            ("arm", Some(number @ ("5" | "6" | "8"))) => Some(format!("v{number}")),
            (_, variant) => variant.map(str::to_owned),
        };
        Platform { variant, ..self }
    }

    /// Tells whether an image for `other` serves where `self` is wanted: same system and
    /// architecture, and the variant where both name one (`arm64` means `arm64/v8`).
    pub fn accepts(&self, other: &Platform) -> bool {
        fn variant(p: &Platform) -> Option<&str> {
            match (p.architecture.as_str(), p.variant.as_deref()) {
                ("arm64", None) => Some("v8"),
                (_, v) => v,
            }
        }
        self.os == other.os
            && self.architecture == other.architecture
            && match (variant(self), variant(other)) {
                (Some(a), Some(b)) => a == b,
                _ => true,
            }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Platform {
    type Err = String;

    fn from_str(text: &str) -> Result<Platform, String> {
        let mut parts = text.split('/');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(os), Some(arch), variant, None)
                if !os.is_empty() && !arch.is_empty() && variant != Some("") =>
            {
                // Other names of the same, as containerd reads them.
                let (architecture, implied) = match arch.to_ascii_lowercase().as_str() {
                    "x86_64" | "x86-64" => ("amd64".into(), None),
                    "aarch64" => ("arm64".into(), None),
                    "i386" => ("386".into(), None),
                    "armhf" => ("arm".into(), Some("v7")),
                    "armel" => ("arm".into(), Some("v6")),
                    other => (other.to_owned(), None),
                };
                Ok(Platform {
                    os: os.to_ascii_lowercase(),
                    architecture,
                    variant: variant.or(implied).map(str::to_ascii_lowercase),
                })
            }
            _ => Err(format!(
                "`{text}` is not a platform: os/architecture[/variant] is wanted, such as linux/amd64"
            )),
        }
    }
}
