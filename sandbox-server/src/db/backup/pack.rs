//! Compressing a backup, and opening one again.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

use super::BackupError;
use super::partial::Partial;

/// How a backup is packed. Restoring tells by the first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Compression {
    /// Opened everywhere.
    Gzip,
    /// Smaller and several times faster.
    Zstd,
}

impl Compression {
    pub(super) const ALL: [Self; 2] = [Self::Gzip, Self::Zstd];

    pub(super) fn extension(self) -> &'static str {
        match self {
            Self::Gzip => "gz",
            Self::Zstd => "zst",
        }
    }

    pub(super) fn magic(self) -> &'static [u8] {
        match self {
            Self::Gzip => &[0x1f, 0x8b],
            Self::Zstd => &[0x28, 0xb5, 0x2f, 0xfd],
        }
    }

    pub(super) fn of(header: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|compression| header.starts_with(compression.magic()))
    }
}

/// A compressed copy, on its way to the name `target`.
pub(super) fn compress(from: &Path, target: &Path, compression: Compression) -> Result<Partial, BackupError> {
    let compressed = Partial::beside(target)?;
    let fail = |what| {
        let path = compressed.path().to_path_buf();
        move |error| BackupError::File(what, path, error)
    };
    let mut input = File::open(from).map_err(fail("open"))?;
    let output = File::create(compressed.path()).map_err(fail("create"))?;
    let written = match compression {
        Compression::Gzip => {
            let mut packer = GzEncoder::new(output, flate2::Compression::default());
            io::copy(&mut input, &mut packer).and_then(|_| packer.finish())
        }
        Compression::Zstd => zstd::Encoder::new(output, zstd::DEFAULT_COMPRESSION_LEVEL).and_then(|mut packer| {
            packer.include_checksum(true)?;
            io::copy(&mut input, &mut packer)?;
            packer.finish()
        }),
    };
    written.map_err(fail("write"))?;
    Ok(compressed)
}

/// Copies a backup, compressed or not, to a place where it can be verified. Its first bytes tell, not its name.
pub fn unpack(from: &Path, to: &Path) -> Result<(), BackupError> {
    let mut header = [0_u8; 4];
    let mut input = File::open(from).map_err(|error| BackupError::File("open", from.to_path_buf(), error))?;
    input.read_exact(&mut header).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => BackupError::Damaged(from.to_path_buf(), "it ends within its first bytes".into()),
        _ => BackupError::File("read", from.to_path_buf(), error),
    })?;
    let mut input = File::open(from).map_err(|error| BackupError::File("open", from.to_path_buf(), error))?;
    let mut output = File::create(to).map_err(|error| BackupError::File("create", to.to_path_buf(), error))?;
    let copied = match Compression::of(&header) {
        Some(Compression::Gzip) => io::copy(&mut GzDecoder::new(input), &mut output),
        Some(Compression::Zstd) => zstd::Decoder::new(input).and_then(|mut input| io::copy(&mut input, &mut output)),
        None => io::copy(&mut input, &mut output),
    };
    match copied {
        Ok(_) => Ok(()),
        Err(error)
            if matches!(
                error.kind(),
                // zstd calls broken data Other.
                io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::Other
            ) =>
        {
            Err(BackupError::Damaged(from.to_path_buf(), format!("the compressed data is broken: {error}")))
        }
        Err(error) => Err(BackupError::File("write", to.to_path_buf(), error)),
    }
}
