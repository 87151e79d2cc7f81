//! What every form of [`Roster`] must do.
