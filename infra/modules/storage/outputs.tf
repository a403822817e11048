output "bucket" {
  value = aws_s3_bucket.log.bucket
}

output "bucket_arn" {
  value = aws_s3_bucket.log.arn
}

output "object_store" {
  description = "What CARNAX_OBJECT_STORE is to say."
  value       = "s3://${aws_s3_bucket.log.bucket}/${var.log_prefix}"
}

output "log_objects_arn" {
  description = "All objects of the cluster, and nothing else in the bucket."
  value       = "${aws_s3_bucket.log.arn}/${var.log_prefix}/*"
}

output "artifacts_prefix" {
  value = "artifacts"
}

output "artifact_objects_arn" {
  value = "${aws_s3_bucket.log.arn}/artifacts/*"
}
