//! What is read of a segmentation, whatever its format.

/// What was read of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segmentation {
    /// One for each name that was asked for, in that order.
    pub segments: Vec<ReadSegment>,
    /// What a person should know of it: doubtful, but no error.
    pub warnings: Vec<String>,
}

/// One segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadSegment {
    /// As the file calls it.
    pub name: String,
    /// 0 or 1 for each voxel of the CT, in the voxel order of its file.
    pub mask: Vec<u8>,
}
