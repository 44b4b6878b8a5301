//! Which transfer syntaxes are read, and what makes one of the others that is.

/// How a transfer syntax codes pixels (PS3.5, annex A).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    /// As they are.
    Plain,
    /// Run lengths of each byte of a pixel (PS3.5, annex G).
    Rle,
    /// JPEG process 14.
    JpegLossless,
    /// Lossless or nearly.
    JpegLs,
    /// Reversible or not.
    Jpeg2000,
}

impl Coding {
    /// The coding of a transfer syntax; else what is wrong with it, as the end of a sentence.
    pub fn of(syntax: &str) -> Result<Self, String> {
        let syntax = syntax.trim_matches([' ', '\0']);
        Ok(match syntax {
            // Implicit and explicit, little and big endian, deflated.
            "1.2.840.10008.1.2" | "1.2.840.10008.1.2.1" | "1.2.840.10008.1.2.2" | "1.2.840.10008.1.2.1.99" => {
                Self::Plain
            }
            "1.2.840.10008.1.2.5" => Self::Rle,
            "1.2.840.10008.1.2.4.57" | "1.2.840.10008.1.2.4.70" => Self::JpegLossless,
            "1.2.840.10008.1.2.4.80" | "1.2.840.10008.1.2.4.81" => Self::JpegLs,
            "1.2.840.10008.1.2.4.90" | "1.2.840.10008.1.2.4.91" => Self::Jpeg2000,
            _ => {
                let (name, way_out) = unread(syntax);
                let shown: String = syntax.chars().filter(|c| c.is_ascii_digit() || *c == '.').collect();
                return Err(format!(
                    "has the transfer syntax {shown}{name}, expected uncompressed, RLE, lossless JPEG, JPEG-LS or \
                     JPEG 2000; {way_out}"
                ));
            }
        })
    }

    /// The programs that were seen to unpack it: DCMTK's and GDCM's. DCMTK's `dcmconv` doesn't, whatever it is asked for.
    pub fn unpacked_by(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Rle => Some("`dcmdrle` or `gdcmconv --raw`"),
            Self::JpegLossless => Some(JPEG_UNPACKED_BY),
            Self::JpegLs => Some("`dcmdjpls` or `gdcmconv --raw`"),
            Self::Jpeg2000 => Some("`gdcmconv --raw`"),
        }
    }
}

const JPEG_UNPACKED_BY: &str = "`dcmdjpeg` or `gdcmconv --raw`";

/// The name of a transfer syntax that is not read, in brackets, and what makes one of it that is.
fn unread(syntax: &str) -> (&'static str, String) {
    match syntax.strip_prefix("1.2.840.10008.1.2.4.").and_then(|rest| rest.parse().ok()) {
        Some(50_u16 | 51) => (" (lossy JPEG)", format!("decompress it with {JPEG_UNPACKED_BY}")),
        Some(52..=66) => (" (a retired JPEG process)", format!("decompress it with {JPEG_UNPACKED_BY}")),
        Some(201..=203) => (
            " (high-throughput JPEG 2000)",
            "decompress it with pydicom and pylibjpeg-openjpeg (`Dataset.decompress`)".to_owned(),
        ),
        _ => ("", "decompress it with the program that wrote it, or with pydicom (`Dataset.decompress`)".to_owned()),
    }
}
