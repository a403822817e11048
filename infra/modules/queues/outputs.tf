output "queues" {
  description = "The ingest queues by name."
  value = {
    for name, queue in aws_sqs_queue.ingest : name => {
      url             = queue.url
      arn             = queue.arn
      dead_letter_url = aws_sqs_queue.dead_letter[name].url
      dead_letter_arn = aws_sqs_queue.dead_letter[name].arn
    }
  }
}
