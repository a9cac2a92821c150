mod full_disk;
mod groups;
mod log_starts;
mod moves;
mod promises;
mod readers;
mod rot;
mod throttles;
